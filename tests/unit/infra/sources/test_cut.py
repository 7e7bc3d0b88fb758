"""One cut in time: what may be learned from, and what is judged."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.sources.cut import cut_of
from infra.sources.errors import UnreadableSource
from infra.sources.labels import read_labels
from infra.sources.shipped import label_mapping, transaction_mapping

AT = datetime(2024, 1, 1, tzinfo=UTC)
DATA = Path(__file__).parents[5] / "shared" / "data" / "ethereum_labelled"


def transfers(tmp_path: Path, *rows: tuple[str, str, str]) -> Path:
    path = tmp_path / "transactions.csv"
    lines = [f"{source},{target},1,{step}" for source, target, step in rows]
    path.write_text("\n".join(["sourceNodeId,targetNodeId,value,time", *lines]) + "\n")
    return path


def labels_of(tmp_path: Path, **labels: str) -> Path:
    path = tmp_path / "nodes.csv"
    path.write_text("nodeid,isFraud\n" + "".join(f"{node},{label}\n" for node, label in labels.items()))
    return path


def test_labels_are_commands_about_wallets(tmp_path: Path) -> None:
    path = labels_of(tmp_path, a="1", b="0", c="maybe", **{"d\x07": "1"})
    found = read_labels(path, label_mapping("amlsim_labels"), AT)
    assert found.by_wallet() == {"amlsim:a": "illicit", "amlsim:b": "licit"}
    assert [command.known_at for command in found.commands] == [AT, AT]
    assert (found.unlabelled, found.rows_read) == (1, 4)
    assert [(row.row, row.reason) for row in found.rejected] == [(3, "invalid_wallet_id")]
    only = read_labels(path, label_mapping("amlsim_labels"), AT, only={"amlsim:b"})
    assert [command.wallet_id for command in only.commands] == ["amlsim:b"]


def test_the_cut_is_where_the_first_test_wallet_appears(tmp_path: Path) -> None:
    path = transfers(tmp_path, ("x", "a", "1"), ("b", "c", "2"), ("a", "x", "3"), ("d", "x", "4"), ("x", "e", "5"),
                     ("a", "b", "6"))  # fmt: skip
    labels = {f"amlsim:{name}": "licit" for name in "edcba"} | {"amlsim:unseen": "illicit"}
    cut = cut_of(path, transaction_mapping("amlsim"), labels)
    assert list(cut.training) == ["amlsim:a", "amlsim:b", "amlsim:c", "amlsim:d"]
    assert list(cut.validation) == ["amlsim:d"]
    assert list(cut.test) == ["amlsim:e"]
    assert (cut.row, cut.validation_row, cut.rows, cut.is_sorted) == (4, 3, 6, True)
    assert cut.occurred_at == datetime(2017, 1, 6, tzinfo=UTC)


def test_a_cut_by_rows_judges_the_wallets_that_come_later(tmp_path: Path) -> None:
    path = transfers(tmp_path, *[(str(i), "hub", str(i)) for i in range(10)])
    cut = cut_of(path, transaction_mapping("amlsim"), {f"amlsim:{i}": "licit" for i in range(10)}, by="rows")
    assert (cut.row, cut.validation_row) == (8, 6)
    assert list(cut.test) == ["amlsim:8", "amlsim:9"]


def test_a_file_out_of_order_is_cut_in_order_of_time(tmp_path: Path) -> None:
    path = transfers(tmp_path, ("e", "x", "9"), ("a", "x", "1"), ("b", "x", "2"), ("c", "x", "3"), ("d", "x", "4"))
    cut = cut_of(path, transaction_mapping("amlsim"), {f"amlsim:{name}": "licit" for name in "abcde"})
    assert not cut.is_sorted
    assert list(cut.test) == ["amlsim:e"]
    assert cut.row == 4


def test_labels_of_transactions_are_cut_with_their_rows(tmp_path: Path) -> None:
    header = ",".join(["Time", *[f"V{i}" for i in range(1, 29)], "Amount", "Class"])
    rows = [",".join([str(i), *["0.5"] * 28, "1", str(i % 2)]) for i in range(10)]
    (tmp_path / "c.csv").write_text("\n".join([header, *rows]))
    cut = cut_of(tmp_path / "c.csv", transaction_mapping("kaggle_card"))
    assert (cut.row, cut.labels_are_of) == (8, "transactions")
    assert (len(cut.training), len(cut.validation), len(cut.test)) == (8, 2, 2)
    assert list(cut.test.values()) == ["licit", "illicit"]


def test_without_labels_only_the_rows_are_cut(tmp_path: Path) -> None:
    cut = cut_of(transfers(tmp_path, *[("a", "b", str(i)) for i in range(10)]), transaction_mapping("amlsim"))
    assert (cut.row, cut.labels_are_of, cut.test) == (8, "nothing", {})


def test_nothing_to_cut_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSource, match="at least one transaction"):
        cut_of(transfers(tmp_path), transaction_mapping("amlsim"))


@pytest.mark.skipif(not DATA.exists(), reason="the labelled Ethereum file is not here")
def test_the_ethereum_file_is_cut_in_august_2018() -> None:
    labels = read_labels(DATA / "labels.csv", label_mapping("ethereum_labels"), AT)
    assert len(labels.commands) == 3_360
    cut = cut_of(DATA / "transactions.csv.gz", transaction_mapping("ethereum"), labels.by_wallet())
    assert (cut.rows, cut.row, cut.occurred_at.date().isoformat()) == (221_208, 125_816, "2018-08-17")
    assert (len(cut.training), len(cut.validation), len(cut.test)) == (2_688, 538, 672)
