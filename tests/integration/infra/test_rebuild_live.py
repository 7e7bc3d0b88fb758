"""A rebuild while everything goes on: the live worker and readers keep reading, reactors stay silent, and there is a way back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event

import psycopg
import pytest

from domain.commands import DescribeWallet, LabelWallet
from domain.log import NewRecord
from infra.composition import Composition
from infra.notifier import QUEUE
from infra.rebuild import RebuildRefused, plan_of, rebuild, rollback, swap
from infra.repair import position_at, repair
from infra.simulator.delivery import commands
from infra.simulator.generator import SimulatorOptions, simulate
from projections.warehouse.sink import schema_of
from schema_registry.contracts import CASE_EVENTS, COMMANDS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log

COUNT = 1_000


@pytest.fixture(scope="module")
def log() -> Iterator[OwnLog]:
    with own_log(["kafka", "registry", "s3", "postgres", "neo4j", "aws"]) as found:
        codec = RecordCodec(found.composition.clients.catalog)
        now = datetime.now(UTC)
        named = [LabelWallet("ethereum:0x1", "illicit", "test", now), DescribeWallet("ethereum:0x1", "contract", "Ann", None, "test", now)]
        found.composition.producer.append([NewRecord(COMMANDS, b"ethereum:0x1", codec.encode_event(command)) for command in named])
        found.simulate(COUNT, seed=3)
        for name in ("archive", "warehouse", "graph"):
            found.drive(name)
        for name in ("command-handler", "warehouse"):
            found.stack.start_worker(name, [sys.executable, "-m", "infra.cli", "run", name])
        found.stack.wait_ready(["command-handler", "warehouse"])
        yield found


@contextmanager
def traffic(log: OwnLog) -> Iterator[None]:
    """Transactions that keep coming while the block runs; afterwards waits until the handler has recorded them."""
    stop, seed = Event(), time.time_ns() % 1_000_000

    def send() -> None:
        composition = log.fresh()
        chunks = commands(simulate(SimulatorOptions(count=5_000, seed=seed)), composition.clients.catalog)
        for chunk in chunks:
            for at in range(0, len(chunk.keys), 20):
                composition.producer.send(COMMANDS, chunk.keys[at : at + 20], chunk.values[at : at + 20])
                composition.producer.flush()
                if stop.wait(0.1):
                    return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def settle(log: OwnLog) -> Composition:
    """Wait until the log has come to rest and the warehouse's worker stands at its head; a composition that knows nothing older."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        composition = log.fresh()
        store = composition.warehouse()
        ends = composition.log.ends(store.topics)
        position = store.load_position()
        store.close()
        handled = composition.clients.admin.committed("tidemark-command-handler", [COMMANDS])
        is_quiet = handled.get((COMMANDS, 0), 0) >= composition.log.ends([COMMANDS])[COMMANDS, 0]
        if is_quiet and all(position.get(tp, 0) >= end for tp, end in ends.items()) and composition.log.ends(store.topics) == ends:
            return composition
        time.sleep(0.2)
    raise AssertionError("the warehouse did not reach the head")


def is_green(log: OwnLog) -> bool:
    """Whether the live warehouse equals the log."""
    composition = settle(log)
    proof = composition.verifier().projection(composition.warehouse())
    assert proof.is_ok or proof.problems
    return proof.is_ok


def stored(composition: Composition, generation: int) -> int:
    """Transactions in one generation of the warehouse."""
    with psycopg.connect(composition.warehouse_dsn) as connection:
        row = connection.execute(f"SELECT count(*) FROM {schema_of(generation)}.fact_transaction").fetchone()
    assert row is not None
    return int(row[0])


def test_the_live_worker_goes_on_while_the_next_generation_is_built(log: OwnLog) -> None:
    live = log.fresh().generations.get("warehouse", 1)
    pid = log.stack.status()["warehouse"].pid
    seen: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage in ("build", "verify"):
            assert log.stack.status()["warehouse"].pid == pid, "it was stopped before the swap"
            seen.append(stored(log.composition, live))

    with traffic(log):
        time.sleep(1)
        result = rebuild(log.fresh(), log.stack, "warehouse", actor="test", progress=progress)
    assert result.is_live and result.proof is not None and result.proof.is_ok
    assert result.compared == "at one position it equals the live one", result
    assert seen[-1] > COUNT, "the live one took what came meanwhile"
    assert 0 < result.readers_paused_s <= result.worker_paused_s < 30
    log.stack.wait_ready(["warehouse"])
    assert log.stack.status()["warehouse"].pid != pid, "it works on the new generation now"
    assert is_green(log)
    assert stored(log.composition, live + 1) >= seen[-1]


def test_it_may_stop_before_the_swap_which_is_then_a_step_of_its_own(log: OwnLog) -> None:
    live = log.fresh().generations["warehouse"]
    with pytest.raises(RebuildRefused, match="no generation of warehouse stands proven"):
        swap(log.fresh(), log.stack, "warehouse", actor="test")
    built = rebuild(log.fresh(), log.stack, "warehouse", actor="test", swaps=False)
    assert not built.is_live and built.proof is not None and built.proof.is_ok
    assert log.fresh().generations["warehouse"] == live
    with traffic(log):
        time.sleep(1)
        swapped = swap(log.fresh(), log.stack, "warehouse", actor="test")
    assert swapped.is_live and swapped.proof is None
    assert log.fresh().generations["warehouse"] == live + 1
    assert is_green(log)


def test_a_rollback_catches_the_old_generation_up_and_returns_to_it(log: OwnLog) -> None:
    composition = settle(log)
    new = composition.generations["warehouse"]
    with traffic(log):
        time.sleep(1)
    settle(log)
    assert stored(composition, new - 1) < stored(composition, new), "the old one stands where it was replaced"
    result = rollback(log.fresh(), log.stack, "warehouse", actor="test")
    assert (result.generation, result.replaced) == (new - 1, new)
    assert result.caught_up_s > 0 and 0 < result.records < COUNT, "from its own checkpoint, not from the first event"
    assert log.fresh().generations["warehouse"] == new - 1
    assert is_green(log)
    with traffic(log):
        time.sleep(0.5)
    assert rollback(log.fresh(), log.stack, "warehouse", actor="test").generation == new, "and forward again the same way"
    assert is_green(log)


def test_the_graph_and_the_archive_have_a_way_back_too(log: OwnLog) -> None:
    for name in ("archive", "graph"):
        log.composition = log.fresh()
        log.drive(name)
        old = rebuild(log.fresh(), log.stack, name, actor="test").replaced
        result = rollback(log.fresh(), log.stack, name, actor="test")
        assert result.generation == old
        composition = log.fresh()
        verifier = composition.verifier()
        proof = verifier.archive(composition.archive()) if name == "archive" else verifier.projection(composition.graph())
        assert [problem for problem in proof.problems if "behind the log" not in problem] == []


# Where it is killed: the build's end, before and after the proof, with the worker stopped, and after the log has the swap.
@pytest.mark.parametrize("place", ["_Job._prove", "_Job.swap", "_Job._events", "KafkaTransactions.close", "WarehouseTarget.after_event"])
def test_killed_anywhere_it_goes_on_from_where_it_was(log: OwnLog, place: str) -> None:
    settle(log)
    live = log.fresh().generations["warehouse"]
    script = f"""
import os, signal, sys
from infra import rebuild
from infra.composition import Composition
from infra.kafka import KafkaTransactions
from infra.rebuild import _Job
from infra.rebuild_targets import WarehouseTarget
from infra.settings import load_settings
from infra.stack import Stack
def die(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)
{place} = die
stack = Stack.of(load_settings(state_dir={str(log.stack.state.folder.parent)!r}, stack={log.stack.state.folder.name!r}))
rebuild.rebuild(Composition(stack.settings()), stack, "warehouse", actor="test")
"""
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stderr
    result = rebuild(log.fresh(), log.stack, "warehouse", actor="test")
    assert result.was_resumed and result.is_live and result.generation == live + 1
    assert result.records < COUNT, "what was read before was not read again"
    assert log.fresh().log.last_swap("warehouse") == (live + 1, live)
    log.stack.wait_ready(["warehouse"])
    assert is_green(log)


def test_a_dry_run_names_the_cost_and_changes_nothing(log: OwnLog) -> None:
    composition = settle(log)
    before = sorted(str(file) for file in (log.stack.state.folder / "rebuild").rglob("*"))
    found = plan_of(composition, log.stack, "warehouse")
    assert found.archive_records + found.kafka_records == found.records > COUNT
    assert found.archive_objects > 0 and found.archive_bytes > 0 and found.kafka_bytes > 0
    assert found.seconds > 0
    assert json.loads(json.dumps(found.as_json()))["replaces"] == composition.generations["warehouse"]
    assert sorted(str(file) for file in (log.stack.state.folder / "rebuild").rglob("*")) == before
    assert log.fresh().generations == composition.generations


DAMAGE = {
    "a changed amount": "UPDATE {s}.fact_transaction SET amount = amount + 1 WHERE seq = 100",
    "a row gone": "DELETE FROM {s}.fact_transaction WHERE seq = 101",
    "a wallet that is not": """
        WITH changed AS (UPDATE {s}.fact_transaction SET source_wallet_id = 'bank:nobody' WHERE seq = 102)
        INSERT INTO {s}.dim_wallet (wallet_id, description_number, network, kind, is_current)
        VALUES ('bank:nobody', 0, 'bank', 'unknown', true)""",
    "a dimension's row changed": """
        UPDATE {s}.dim_wallet SET kind = 'mixer'
        WHERE wallet_id = (SELECT coalesce(source_wallet_id, target_wallet_id) FROM {s}.fact_transaction WHERE seq = 103)""",
    "a row that no record gave": """
        INSERT INTO {s}.fact_wallet_control (event_type, wallet_id, reason, known_at, ingested_at, log_partition, log_offset)
        SELECT 'WalletFrozen', 'bank:nobody', 'a hand', now(), now(), partition, next_offset - 1
        FROM {s}.checkpoints WHERE topic = 'wallet-events' LIMIT 1""",
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_part_is_repaired_in_place_while_the_worker_goes_on(log: OwnLog, damage: str) -> None:
    composition = settle(log)
    schema = schema_of(composition.generations["warehouse"])
    with psycopg.connect(composition.warehouse_dsn) as connection:
        changed = connection.execute(DAMAGE[damage].format(s=schema)).rowcount
    if not changed:
        pytest.fail("the damage found nothing to damage")
    assert not is_green(log)
    before = composition.warehouse().load_position()
    with traffic(log):
        start = position_at(composition, composition.warehouse().topics, 0)
        result = repair(log.fresh(), "warehouse", start=start, end=before)
    assert result.slices >= 1 and result.written >= COUNT
    assert is_green(log)


def test_a_wallets_rows_are_repaired_and_no_others_are_touched(log: OwnLog) -> None:
    composition = settle(log)
    schema = schema_of(composition.generations["warehouse"])
    with psycopg.connect(composition.warehouse_dsn) as connection:
        row = connection.execute(f"SELECT target_wallet_id FROM {schema}.fact_transaction WHERE seq = 200").fetchone()
        assert row is not None
        wallet = row[0]
        connection.execute(f"UPDATE {schema}.fact_transaction SET target_wallet_id = 'bank:nobody', amount = 1 WHERE seq = 200")
        # One that names it now, though the log says another: it is found by its row.
        connection.execute(f"UPDATE {schema}.fact_transaction SET target_wallet_id = %s WHERE seq = 201", (wallet,))
    assert not is_green(log)
    result = repair(log.fresh(), "warehouse", start={}, wallet=wallet)
    assert 0 < result.written < COUNT
    assert is_green(log)


def test_a_time_is_found_as_the_offsets_where_it_begins(log: OwnLog) -> None:
    composition = settle(log)
    topics = composition.warehouse().topics
    assert set(position_at(composition, topics, 0).values()) == {0}
    later = int(time.time() * 1000) + 60_000
    assert position_at(composition, topics, later) == composition.clients.admin.ends(topics)


def test_a_graph_is_not_repaired_in_part_and_the_message_says_why(log: OwnLog) -> None:
    with pytest.raises(ValueError, match="sums of many records"):
        repair(log.fresh(), "graph", start={})


def test_reactors_are_silent_while_projections_are_built_and_repaired(log: OwnLog) -> None:
    composition = settle(log)
    codec = RecordCodec(composition.clients.catalog)
    alert = {
        "case_id": "case-1", "wallet_id": "ethereum:0x1", "reason": "score", "score": 0.9, "threshold": 0.5, "tx_id": "ethereum:0x2",
        "tx_seq": 1, "explanation": "{}", "model_version": "m1", "known_at": datetime.now(UTC),
    }  # fmt: skip
    composition.producer.append([NewRecord(CASE_EVENTS, b"case-1", codec.encode("AlertRaised", alert))])
    worker = composition.worker("notifier")  # makes the queue
    sqs = composition.clients.aws("sqs")
    url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]

    def waiting() -> int:
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
        return int(found["ApproximateNumberOfMessages"])

    settle(log)
    result = rebuild(log.fresh(), log.stack, "warehouse", actor="test")
    assert result.proof is not None and result.proof.rows["fact_alert"] == 1, "the alert was read"
    rollback(log.fresh(), log.stack, "warehouse", actor="test")
    log.stack.wait_ready(["warehouse"])
    repair(log.fresh(), "warehouse", start={}, wallet="ethereum:0x1")
    assert waiting() == 0
    from projections.runner import Runner

    Runner(worker.source, worker.work, worker.policy).run(Event(), until=composition.log.ends([CASE_EVENTS]))
    assert waiting() == 1, "the reactor itself does send it"
