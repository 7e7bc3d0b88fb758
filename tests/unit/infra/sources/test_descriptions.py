"""Reference data: each row a version of a wallet, valid from when it became known; a wrong row is refused with its place."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.sources.descriptions import read_descriptions
from infra.sources.errors import MappingError
from infra.sources.mapping import DescriptionMapping, parse_mapping
from infra.sources.shipped import any_mapping, detect, header_of, label_mapping

AT = datetime(2026, 5, 1, tzinfo=UTC)
FILE = """wallet_id,kind,name,country,known_at
ethereum:0xa,exchange,Northern Exchange,NL,2024-01-01T00:00:00Z
ethereum:0xa,exchange,Northern Exchange,EE,2025-06-01T00:00:00Z
bank:4711,customer,,DE,
ethereum:0xb,palace,Who,FR,2024-01-01T00:00:00Z
,exchange,Who,FR,2024-01-01T00:00:00Z
ethereum:0xc,contract,A,FR,yesterday
ethereum:0xc,contract,A,FR,2999-01-01T00:00:00Z
"""


def shipped() -> DescriptionMapping:
    found = any_mapping("tidemark_descriptions")
    assert isinstance(found, DescriptionMapping)
    return found


def test_a_row_is_a_version_and_what_is_wrong_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "wallets.csv").write_text(FILE)
    assert detect(header_of(str(tmp_path / "wallets.csv"))) == shipped()
    found = read_descriptions(str(tmp_path / "wallets.csv"), shipped(), AT)
    assert [(row.wallet_id, row.kind, row.name, row.country, row.known_at) for row in found.commands] == [
        ("ethereum:0xa", "exchange", "Northern Exchange", "NL", datetime(2024, 1, 1, tzinfo=UTC)),
        ("ethereum:0xa", "exchange", "Northern Exchange", "EE", datetime(2025, 6, 1, tzinfo=UTC)),
        ("bank:4711", "customer", None, "DE", AT),
    ]
    assert {row.source for row in found.commands} == {"file"}
    assert [(row.row, row.reason) for row in found.rejected] == [
        (3, "invalid_kind"),
        (4, "missing_wallet_id"),
        (5, "invalid_known_at"),
        (6, "invalid_known_at"),
    ]
    assert found.rows_read == 7 and b"palace" in found.rejected[0].raw


def test_a_file_of_ones_own_is_a_page_of_yaml(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("address;typ\n0xa;CEX\n0xb;?\n0xc;shop\n")
    mapping = parse_mapping(
        "name: mine\nmapping_version: 1\ndescribes: descriptions\nnetwork: ethereum\nwallet: {column: address}\n"
        "kind: {column: typ, values: {CEX: exchange, shop: merchant}, otherwise: address}\nsource: research\ndelimiter: ';'\n",
        "mine.yaml",
    )
    assert isinstance(mapping, DescriptionMapping)
    found = read_descriptions(str(tmp_path / "m.csv"), mapping, AT)
    assert [(row.wallet_id, row.kind, row.source, row.known_at) for row in found.commands] == [
        ("ethereum:0xa", "exchange", "research", AT),
        ("ethereum:0xb", "address", "research", AT),
        ("ethereum:0xc", "merchant", "research", AT),
    ]
    assert not found.rejected


def test_a_kind_that_there_is_not_and_another_thing_described_are_mistakes() -> None:
    with pytest.raises(MappingError, match="palace"):
        parse_mapping(
            "name: m\nmapping_version: 1\ndescribes: descriptions\nnetwork: e\nwallet: {column: a}\nkind: {constant: palace}\nsource: x\n",
            "m",
        )
    with pytest.raises(MappingError, match="expected labels, found descriptions"):
        label_mapping("tidemark_descriptions")
