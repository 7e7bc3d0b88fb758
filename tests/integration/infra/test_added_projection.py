"""The worked example on the whole road: installed, run as a worker, shown, waited for, proven, rebuilt, swapped, rolled back."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sa

from domain.log import NewRecord
from infra.cli import exits
from infra.cli.app import run
from infra.metrics import read_statuses
from infra.read_models import ReadModel, read_model
from infra.read_your_write import token_now
from projections.decoding import decode
from projections.protocol import EventBatch, Excluded
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import TRANSACTION_EVENTS
from tests.example_projection import installed
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

COUNT = 400
NAME = "net-flow"


@dataclass
class Road:
    """A log whose net flow has a live worker."""

    log: OwnLog
    settled: int

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.log.composition.warehouse_dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def live(self) -> int:
        """The generation that readers see."""
        return int(self.query("SELECT generation FROM net_flow.live_generation")[0][0])

    def transactions(self) -> int:
        """What readers see of it."""
        return int(self.query("SELECT sum(transactions) FROM net_flow.asset_hour")[0][0])

    def settle(self) -> None:
        """Wait until the worker stands at the head."""
        deadline = time.monotonic() + 180
        ends = self.log.ends([TRANSACTION_EVENTS])
        while time.monotonic() < deadline:
            store = self.log.fresh().store(NAME)
            position = store.load_position()
            store.close()
            if all(position.get(tp, 0) >= end for tp, end in ends.items()):
                return
            time.sleep(0.2)
        raise AssertionError("net flow did not reach the head")


def settled(log: OwnLog) -> int:
    """Transactions of the log that moved value, counted without the projection."""
    codec = ColumnCodec(log.composition.clients.catalog, {"TransactionRecorded": ("status",)})
    batches = list(log.composition.log.read([TRANSACTION_EVENTS], {}, log.ends([TRANSACTION_EVENTS])))
    found = decode(codec, batches)[0].tables["TransactionRecorded"]["status"].to_pylist()
    return found.count("settled")


@pytest.fixture(scope="module")
def road(shared_servers: SharedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    folder = tmp_path_factory.mktemp("site") / "packages"
    with installed(folder), own_log(shared_servers, ["kafka", "registry", "s3", "postgres"]) as log, pytest.MonkeyPatch.context() as patch:
        log.simulate(COUNT, seed=3)
        log.composition.producer.append([NewRecord(TRANSACTION_EVENTS, b"k", b"\x00noise")])
        folder_of_stack = log.stack.state.folder
        for name, value in (("TIDEMARK_STATE_DIR", folder_of_stack.parent), ("TIDEMARK_STACK", folder_of_stack.name)):
            patch.setenv(name, str(value))
        worker = [sys.executable, "-m", "infra.cli", "run", NAME]
        log.stack.start_worker(NAME, worker, {"PYTHONPATH": str(folder)})
        log.stack.wait_ready([NAME])
        found = Road(log, settled(log))
        found.settle()
        yield found


def answer(capsys: pytest.CaptureFixture[str], *words: str, status: int = exits.OK) -> Any:
    """What a command prints with --json."""
    capsys.readouterr()
    ended = run([*words, "--json"])
    shown = capsys.readouterr()
    assert ended == status, shown.err + shown.out
    return json.loads(shown.out)


def test_its_worker_fills_it_and_readers_see_the_live_generation(road: Road) -> None:
    assert (road.live(), road.transactions()) == (1, road.settled)
    # What one wallet sends another receives: what is left is value whose other side has no name.
    assert road.query("SELECT count(*) FROM net_flow.wallet_hour WHERE net <> inflow - outflow") == [(0,)]


def test_status_metrics_and_wait_know_it(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    # The servers that it does not need were not started.
    (found,) = [worker for worker in answer(capsys, "status", status=exits.DOWN)["workers"] if worker["name"] == NAME]
    assert (found["state"], found["is_caught_up"], found["generation"], found["quarantined"]) == ("ready", True, 1, 1)
    port = read_statuses(road.log.stack.state.folder / "workers")[NAME]["metrics_port"]
    assert 'tidemark_records_total{worker="net-flow"}' in httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    token = str(token_now(road.log.fresh()))
    (waited,) = answer(capsys, "wait", token, "--for", NAME)["readers"]
    assert waited["included"] and set(waited["position"]) == {f"{TRANSACTION_EVENTS}/{p}" for p in range(6)}


def test_verify_is_green_and_names_a_row_that_someone_changed(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    (proof,) = answer(capsys, "verify", NAME)["stores"]
    assert (proof["store"], proof["quarantined"], proof["rows"].keys()) == (NAME, 1, {"asset_hour", "wallet_hour"})
    assert proof["excluded"].get("not_settled", 0) == COUNT - road.settled
    where = "WHERE ctid = (SELECT ctid FROM {t} LIMIT 1)".format(t="net_flow_g1.wallet_hour")
    road.query(f"UPDATE net_flow_g1.wallet_hour SET net = net + 0.000000000000000001 {where}")
    try:
        (proof,) = answer(capsys, "verify", NAME, status=exits.RED)["stores"]
        assert "wallet_hour: the log implies" in proof["problems"][0]
    finally:
        road.query("UPDATE net_flow_g1.wallet_hour SET net = inflow - outflow")
    assert answer(capsys, "verify", NAME)["ok"]


def test_its_quarantine_is_listed_and_given_back_to_it(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    (entry,) = answer(capsys, "quarantine", "list", "--projection", NAME)
    found = answer(capsys, "quarantine", "replay", f"{TRANSACTION_EVENTS}/{entry['partition']}/{entry['offset']}", status=exits.FAILED)
    (tried,) = [item for item in found["entries"] if item["projection"] == NAME]
    assert tried["outcome"].startswith(entry["reason"])


def test_killed_it_goes_on_and_nothing_is_there_twice(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    killed = road.log.stack.kill(NAME)
    road.log.simulate(COUNT, seed=4)
    road.settled = settled(road.log)
    road.log.stack.wait_ready([NAME])
    road.settle()
    assert road.log.stack.status()[NAME].pid != killed
    assert road.transactions() == road.settled
    assert answer(capsys, "verify", NAME)["ok"]


def test_it_is_rebuilt_swapped_and_rolled_back_beside_its_worker(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    planned = answer(capsys, "rebuild", NAME, "--dry-run")
    assert (planned["generation"], planned["replaces"]) == (2, 1) and planned["records"] > 0
    built = answer(capsys, "rebuild", NAME, "--no-swap")
    assert (built["generation"], built["is_live"], built["verify"]["ok"], built["differences"]) == (2, False, True, [])
    assert "equals the live one" in built["compared"]
    assert road.live() == 1
    swapped = answer(capsys, "rebuild", NAME, "--swap")
    assert (swapped["is_live"], swapped["old"], road.live()) == (True, "schema net_flow_g1", 2)
    road.log.stack.wait_ready([NAME])
    road.log.simulate(100, seed=5)
    road.settled = settled(road.log)
    road.settle()
    assert road.transactions() == road.settled
    back = answer(capsys, "rebuild", NAME, "--rollback")
    assert (back["generation"], back["replaced"], road.live()) == (1, 2, 1)
    assert back["records"] >= 100, "it was caught up before it was shown"
    road.log.stack.wait_ready([NAME])
    road.settle()
    assert road.transactions() == road.settled
    assert answer(capsys, "verify", NAME)["ok"]


def test_a_column_more_is_a_rebuild_away(road: Road, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    road.log.stack.stop_worker(NAME)
    before: Any = read_model(NAME).table_projection()
    more = sa.MetaData()
    for table in before.layout.sorted_tables:
        table.to_metadata(more)
    more.tables["asset_hour"].append_column(sa.Column("unnamed", sa.BigInteger, nullable=False))

    class More(before):  # type: ignore[misc]
        """Counts transactions whose source has no name, too."""

        layout = more

        def rows(self, batch: EventBatch, excluded: Excluded) -> Iterator[tuple[sa.Table, pa.Table]]:
            for table, found in super().rows(batch, excluded):
                if table.name == "asset_hour":
                    found = found.append_column("unnamed", pa.repeat(pa.scalar(0, pa.int64()), found.num_rows))
                yield more.tables[table.name], found

    monkeypatch.setattr(ReadModel, "table_projection", lambda self: More)
    built = answer(capsys, "rebuild", NAME)
    assert built["is_live"] and built["verify"]["ok"] and "has other columns" in built["compared"]
    assert road.query("SELECT sum(unnamed), sum(transactions) FROM net_flow.asset_hour") == [(0, road.settled)]
