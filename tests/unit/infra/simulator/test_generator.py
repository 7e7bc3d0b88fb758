"""The simulator: repeatable, in order of time, with truth that is apart and cannot be read off."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.metrics import roc_auc_score

from infra.simulator.delivery import commands, write_stream, write_truth
from infra.simulator.generator import Simulation, SimulatorOptions, simulate
from infra.simulator.schemes import LOOK_ALIKES, TYPOLOGIES
from infra.sources.cut import cut_of
from infra.sources.labels import read_labels
from infra.sources.raw_rows import Problems
from infra.sources.reading import read
from infra.sources.rules import check_transactions
from infra.sources.shipped import detect, header_of, label_mapping, transaction_mapping
from schema_registry.catalog import SchemaCatalog
from schema_registry.record_codec import RecordCodec

CATALOG = SchemaCatalog.numbered()


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(SimulatorOptions(seed=3, count=12_000))


def test_the_same_seed_gives_the_same_stream_and_another_another(simulation: Simulation) -> None:
    again = simulate(SimulatorOptions(seed=3, count=12_000))
    assert again.table.equals(simulation.table)
    assert (again.labels, again.schemes) == (simulation.labels, simulation.schemes)
    assert not simulate(SimulatorOptions(seed=4, count=12_000)).table.equals(simulation.table)


def test_every_row_is_a_transaction_in_order_of_time(simulation: Simulation) -> None:
    table = simulation.table
    problems = Problems(table.num_rows)
    check_transactions(table, problems, None)
    assert problems.by_row == {}
    assert table.num_rows == 12_000
    assert (np.diff(np.array(table.column("occurred_at").cast(pa.int64()))) >= 0).all()
    assert pc.count_distinct(table.column("tx_id")).as_py() == 12_000


def test_every_kind_and_status_occurs_and_trades_have_both_sides(simulation: Simulation) -> None:
    table = simulation.table
    kinds = Counter(table.column("kind").to_pylist())
    assert set(kinds) == {"transfer", "trade", "deposit", "withdrawal", "payment"}
    assert set(table.column("status").to_pylist()) == {"settled", "failed", "declined"}
    trades = table.filter(pc.equal(table.column("kind"), "trade"))
    assert trades.column("counter_amount").null_count == 0
    assert not pc.any(pc.equal(trades.column("asset"), trades.column("counter_asset"))).as_py()
    assert min(table.column("amount").to_pylist()) > Decimal(0)


def test_labels_are_balanced_and_schemes_are_whole(simulation: Simulation) -> None:
    counts = Counter(simulation.labels.values())
    assert counts["illicit"] == counts["licit"] > 200
    by_id = dict(zip(simulation.table.column("tx_id").to_pylist(), simulation.table.to_pylist(), strict=True))
    seen: set[str] = set()
    for scheme in simulation.schemes:
        assert scheme.typology in (TYPOLOGIES if scheme.is_illicit else LOOK_ALIKES.values())
        rows = [by_id[tx_id] for tx_id in scheme.tx_ids]
        assert scheme.first_occurred_at == min(row["occurred_at"] for row in rows)
        assert scheme.last_occurred_at == max(row["occurred_at"] for row in rows)
        wallets = set(scheme.wallet_ids)
        assert all(wallets & {row["source_wallet_id"], row["target_wallet_id"]} for row in rows)
        assert not seen & wallets
        seen |= wallets


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_the_share_of_fraud_is_what_was_asked_for(share: float) -> None:
    found = simulate(SimulatorOptions(count=10_000, fraud_share=share))
    bad = sum(len(scheme.tx_ids) for scheme in found.schemes if scheme.is_illicit)
    assert bad / 10_000 == pytest.approx(share, abs=0.015)


def test_neither_ids_nor_hours_nor_amounts_tell_who_is_illicit(simulation: Simulation) -> None:

    first: dict[str, tuple[float, int]] = {}
    for row in simulation.table.select(["source_wallet_id", "target_wallet_id", "amount", "occurred_at"]).to_pylist():
        for wallet in (row["source_wallet_id"], row["target_wallet_id"]):
            first.setdefault(wallet, (float(row["amount"]), row["occurred_at"].hour))
    names = list(simulation.labels)
    truth = [simulation.labels[name] == "illicit" for name in names]
    for guess in (
        [int(name.removeprefix("chain:0x")[:8], 16) for name in names],
        [first[name][0] for name in names],
        [first[name][1] for name in names],
        list(range(len(names))),
    ):
        assert abs(roc_auc_score(truth, guess) - 0.5) < 0.1


def test_days_are_busier_than_nights_and_weekdays_than_weekends(simulation: Simulation) -> None:
    times = simulation.table.column("occurred_at")
    hours = Counter(pc.hour(times).to_pylist())
    assert hours[12] > 1.8 * hours[3]
    days = Counter(pc.day_of_week(times).to_pylist())
    assert days[1] > 1.1 * days[6]


def test_few_wallets_do_much_of_everything(simulation: Simulation) -> None:
    counts = sorted(Counter(simulation.table.column("target_wallet_id").to_pylist()).values(), reverse=True)
    assert sum(counts[:20]) > 0.25 * sum(counts)


@pytest.mark.parametrize("name", ["s.parquet", "s.csv.gz", "s.jsonl.gz"])
def test_a_file_reads_back_as_the_same_stream_and_cuts_by_its_truth(simulation: Simulation, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_stream(simulation, path)
    write_truth(simulation, tmp_path / "labels.csv", tmp_path / "schemes.jsonl")
    assert detect(header_of(path)) is transaction_mapping("tidemark")
    found = list(read(path, transaction_mapping("tidemark"), ingest_id="i", catalog=CATALOG))
    assert not any(chunk.rejected for chunk in found)
    table = pa.concat_tables([chunk.table for chunk in found]).combine_chunks()
    for column in table.column_names:
        if not column.startswith("origin."):
            assert table.column(column).combine_chunks().equals(simulation.table.column(column).combine_chunks()), column
    labels = read_labels(tmp_path / "labels.csv", label_mapping("tidemark_labels"), datetime.now(UTC)).by_wallet()
    assert labels == simulation.labels
    cut = cut_of(path, transaction_mapping("tidemark"), labels)
    assert 0 < cut.validation_row < cut.row < cut.rows
    assert set(cut.test.values()) == {"licit", "illicit"}
    schemes = [json.loads(line) for line in (tmp_path / "schemes.jsonl").read_text().splitlines()]
    assert [scheme["typology"] for scheme in schemes] == [scheme.typology for scheme in simulation.schemes]


def test_commands_are_the_rows_with_their_keys(simulation: Simulation) -> None:
    found = list(commands(simulation, CATALOG, chunk_rows=700, first_row=100, last_row=1_000))
    assert [chunk.first_row for chunk in found] == [100, 800]
    values = [value for chunk in found for value in chunk.values]
    record = RecordCodec(CATALOG).decode(values[0])[1]
    assert record["tx_id"] == simulation.table.column("tx_id")[100].as_py()
    assert found[0].keys[0].decode() == record["source_wallet_id"]
    assert len(values) == 900


def test_a_paced_stream_keeps_its_rate(simulation: Simulation) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    sent = 0
    for chunk in commands(simulation, CATALOG, last_row=1_000, rate=200.0, clock=lambda: now, sleep=sleep):
        assert sent == pytest.approx(now * 200, abs=10.01)
        sent += len(chunk.values)
    assert now == pytest.approx(4.95, abs=0.01)
    with pytest.raises(ValueError, match="above zero"):
        next(commands(simulation, CATALOG, rate=0))


@pytest.mark.parametrize("options", [{"fraud_share": 0.9}, {"count": 3}, {"days": 0}, {"start": datetime(2024, 1, 1)}], ids=str)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        SimulatorOptions(**options)  # type: ignore[arg-type]
