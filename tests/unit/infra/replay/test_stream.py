"""The replayed stream: copies of the population side by side, schemes planted in their place, mistakes in their file named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.replay.errors import SchemesError, StrategyError
from infra.replay.schemes import injected, read_schemes
from infra.replay.strategy import load_strategy
from infra.replay.stream import scaled, with_planted
from infra.simulator.schemes import TYPOLOGIES
from schema_registry.column_codec import TIME

START = datetime(2024, 1, 1, tzinfo=UTC)


def rows(times: list[int], name: str = "t") -> pa.Table:
    return pa.table(
        {
            "tx_id": pa.array([f"{name}{i}" for i in range(len(times))], pa.string()),
            "source_wallet_id": pa.array(["a" if i % 2 else None for i in range(len(times))], pa.string()),
            "target_wallet_id": pa.array(["b"] * len(times), pa.string()),
            "occurred_at": pa.array(times, pa.int64()).cast(TIME),
        }
    )


@given(st.lists(st.lists(st.integers(0, 50), max_size=6), max_size=5), st.lists(st.integers(-5, 60), max_size=8))
def test_planted_transactions_stand_before_the_first_later_one_whatever_the_tables(history: list[list[int]], planted: list[int]) -> None:
    tables = [rows(times, f"h{number}-") for number, times in enumerate(history)]
    parts = list(with_planted(tables, rows(sorted(planted), "p")))
    found = pa.concat_tables(parts) if parts else rows([])
    names, times = found["tx_id"].to_pylist(), found["occurred_at"].cast(pa.int64()).to_pylist()
    assert [name for name in names if name[0] == "h"] == [name for table in tables for name in table["tx_id"].to_pylist()]
    assert [name for name in names if name[0] == "p"] == [f"p{i}" for i in range(len(planted))]
    waiting: list[int] = []
    latest = -np.inf
    for name, at in zip(names, times, strict=True):
        if name[0] == "p":
            assert latest <= at, "it stands behind a later one of history"
            waiting.append(at)
            continue
        latest = max(latest, at)
        assert all(planted_at < latest for planted_at in waiting), "it could have waited"
        waiting.clear()


def test_copies_are_the_same_graph_under_other_names() -> None:
    found = scaled(rows([1, 2]), 3)
    assert found["tx_id"].to_pylist() == ["t0", "t0~2", "t0~3", "t1", "t1~2", "t1~3"]
    assert found["source_wallet_id"].to_pylist() == [None, None, None, "a", "a~2", "a~3"]
    assert scaled(rows([1]), 1).equals(rows([1]))


def test_schemes_are_drawn_alike_each_time_within_their_span(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("\n".join(f"- {{typology: {name}, at: 10%, within: 2h, count: 2, every: 3h}}" for name in TYPOLOGIES))
    file = read_schemes(tmp_path / "s.yaml")
    first, second = (injected(file.schemes, START, START + timedelta(days=2)) for _ in range(2))
    assert first.table.equals(second.table) and first.members == second.members and first.schemes == 2 * len(TYPOLOGIES)
    times = first.table["occurred_at"].to_pylist()
    begin = START + timedelta(days=0.2)
    assert begin <= times[0] and times == sorted(times) and times[-1] < begin + timedelta(hours=5)
    assert len(set(first.table["tx_id"].to_pylist())) == first.table.num_rows
    assert len(first.members) <= 8 * first.schemes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {typology: fan_in, at: 10%, colour: red}", r"0\.colour"),
        ("- {typology: whirl, at: 10%}", "0.typology: expected one of"),
        ("- {typology: fan_in, at: soon}", "0.at"),
        ("- {typology: stack, at: 1h, wallets: 3}", "needs 6"),
        ("- {typology: fan_in, at: 1h, within: never}", "0.within"),
        ("- {typology: fan_in, at: 1h, size: .inf}", "0.size"),
        ("typology: fan_in", "list"),
        ("[]", "1 to 10,000"),
        ("- &a {typology: fan_in, at: 1h}\n- *a", "alias|anchor"),
    ],
)
def test_a_mistake_in_a_file_of_schemes_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SchemesError, match=says):
        read_schemes(tmp_path / "s.yaml")


def test_a_scheme_outside_of_the_replay_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("- {typology: fan_in, at: 2024-01-05, wallets: 5}")
    with pytest.raises(SchemesError, match=r"0\.at: expected 2024-01-01"):
        injected(read_schemes(tmp_path / "s.yaml").schemes, START, START + timedelta(days=2))
    with pytest.raises(SchemesError, match="not readable"):
        read_schemes(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Strategy:\n    pass\n", "on_price or on_transaction"),
        ("x = 1\n", "expected a class Strategy"),
        ("def broken(:\n", "SyntaxError"),
        ("import nothing_of_that_name\n", "line 1"),
        ("raise ValueError('no')\n", "ValueError: no"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "s.py").write_text(text)
    with pytest.raises(StrategyError, match=says):
        load_strategy(tmp_path / "s.py")
    with pytest.raises(StrategyError, match="no readable file"):
        load_strategy(tmp_path / "none.py")
