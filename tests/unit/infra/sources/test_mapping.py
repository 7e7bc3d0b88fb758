"""Mappings are checked as a whole, and what ships is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.plain_yaml import MAX_BYTES
from infra.sources.errors import MappingError, UnreadableSource
from infra.sources.mapping import DescriptionMapping, LabelMapping, PriceMapping, TransactionMapping, parse_mapping, read_mapping
from infra.sources.shipped import detect, header_of, label_mapping, shipped_mappings, transaction_mapping
from infra.sources.suggestion import suggest

GOOD = """
name: good
mapping_version: 1
describes: transactions
network: net
transaction_id: {column: id}
occurred_at: {column: t, format: unix_s}
amount: {column: a}
asset: {constant: EUR}
"""


def test_all_mistakes_are_reported_together_by_field() -> None:
    text = GOOD.replace("name: good", "name: Bad Name").replace("constant: EUR", "constant: EUR, column: x")
    text = text.replace("format: unix_s", "format: step") + "surprise: 1\nkind: {constant: bribe}\n"
    with pytest.raises(MappingError) as caught:
        parse_mapping(text, "here")
    assert set(caught.value.mistakes) == {"name", "asset", "occurred_at", "surprise", "kind"}
    assert "exactly one of column, constant and template" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "doc: !!python/object/apply:os.system ['true']", "found a tag"),
        (GOOD + "doc: !!str x", "found a tag"),
        ("a: &a [x]\nb: *a", "found an anchor"),
        ("- 1", "expected fields, found list"),
        ("a: [", "yaml"),
        ("\0", "yaml"),
        ("x" * (MAX_BYTES + 1), "expected at most"),
        (GOOD.replace("describes: transactions", "describes: spells"), "describes"),
        (GOOD + "payment: {device_id: {column: d}}", "needs pseudonym"),
        (GOOD.replace("unix_s", "iso, zone: Mars/Base"), "IANA time zone"),
        (GOOD.replace("{column: a}", "{column: a, unit: wei, exponent: 2}"), "unit or exponent"),
    ],
    ids=["python-tag", "plain-tag", "anchor", "list", "broken", "control", "long", "kind", "device", "zone", "scale"],
)
def test_a_mapping_that_cannot_be_used_says_why(text: str, message: str) -> None:
    with pytest.raises(MappingError, match=message):
        parse_mapping(text, "here")


def test_a_mapping_is_read_from_a_file_or_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(GOOD)
    assert read_mapping(tmp_path / "m.yaml").title == transaction_mapping(tmp_path / "m.yaml").title == "good@1"
    assert label_mapping("ethereum_labels").columns() == ["address", "label"]
    with pytest.raises(UnreadableSource, match="shipped mappings"):
        transaction_mapping("nonsense")
    with pytest.raises(MappingError, match="expected labels, found transactions"):
        label_mapping("ethereum")
    with pytest.raises(MappingError, match="expected transactions, found labels"):
        transaction_mapping("ethereum_labels")


@pytest.mark.parametrize("name", sorted(shipped_mappings()))
def test_each_shipped_mapping_is_found_by_its_own_columns(name: str) -> None:
    mapping = shipped_mappings()[name]
    assert detect(tuple(reversed(mapping.columns()))) is mapping
    assert isinstance(mapping, (TransactionMapping, LabelMapping, DescriptionMapping, PriceMapping))


def test_an_unknown_header_has_no_shipped_mapping() -> None:
    assert detect(("a", "b")) is None


def test_the_header_of_json_lines_is_that_of_its_first_rows(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('nonsense\n{"a": 1, "b": {"c": 2}}\n{"d": 1}\n')
    assert header_of(tmp_path / "x.jsonl") == ("a", "b.c", "d")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (("step", "type", "amount", "nameOrig", "nameDest", "isFraud"),
         {"source_wallet": "nameOrig", "target_wallet": "nameDest"}),
        (("txHash", "from", "to", "value", "timestamp", "blockNumber"),
         {"source_wallet": "from", "target_wallet": "to"}),
        (("Time", *[f"V{i}" for i in range(1, 29)], "Amount", "Class"), {}),
    ],
    ids=["paysim", "explorer", "card"],
)  # fmt: skip
def test_a_draft_is_a_mapping_that_parses(header: tuple[str, ...], expected: dict[str, str]) -> None:
    mapping = parse_mapping(suggest(header), "draft")
    assert isinstance(mapping, TransactionMapping)
    assert set(mapping.columns()) <= set(header)
    for field, column in expected.items():
        assert getattr(mapping, field).column == column


def test_a_draft_marks_what_it_could_not_guess() -> None:
    mapping = parse_mapping(suggest(("foo", "bar")), "draft")
    assert "?" in mapping.columns()
    assert "'foo', 'bar'" in suggest(("foo", "bar"))
