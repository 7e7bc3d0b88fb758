"""A rebuild while everything goes on: the live worker and readers keep reading, reactors stay silent, and there is a way back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from threading import Event

import pytest

from domain.events import AlertRaised, AlertReason
from domain.log import NewRecord
from infra.notifier import QUEUE
from infra.rebuild import RebuildRefused, plan_of, rebuild, rollback, swap
from infra.repair import repair
from projections.runner import Runner
from schema_registry.contracts import CASE_EVENTS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.live_log import COUNT, is_green, live_log, settle, stored, traffic
from tests.integration.infra.own_log import OwnLog
from tests.shared_servers import SharedServers


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with live_log(shared_servers, ["kafka", "registry", "s3", "postgres", "neo4j", "aws"], ["archive", "warehouse", "graph"]) as found:
        yield found


def test_the_live_worker_goes_on_while_the_next_generation_is_built(log: OwnLog) -> None:
    live = log.fresh().generations.get("warehouse", 1)
    pid = log.stack.status()["warehouse"].pid
    taken: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in ("build", "verify"):
            return
        before, deadline = stored(log.composition, live), time.monotonic() + 180
        while not taken and stored(log.composition, live) == before:
            assert time.monotonic() < deadline, "the live one takes nothing while the next is built"
            time.sleep(0.1)
        taken.append(stored(log.composition, live))
        assert log.stack.status()["warehouse"].pid == pid, "it was stopped before the swap"

    with traffic(log):
        result = rebuild(log.fresh(), log.stack, "warehouse", actor="test", progress=progress)
    assert result.is_live and result.proof is not None and result.proof.is_ok
    assert result.compared == "at one position it equals the live one", result
    assert len(taken) >= 3
    assert 0 < result.readers_paused_s <= result.worker_paused_s < 30
    log.stack.wait_ready(["warehouse"])
    assert log.stack.status()["warehouse"].pid != pid, "it works on the new generation now"
    assert is_green(log)
    assert stored(log.composition, live + 1) >= taken[-1]


def test_stores_are_proven_while_traffic_flows(log: OwnLog) -> None:
    composition = log.fresh()
    verifier = composition.verifier(patience_s=30)
    before = log.ends([TRANSACTION_EVENTS])
    with traffic(log):
        for proof in (verifier.log(), verifier.projection(composition.warehouse()), verifier.log()):
            assert proof.problems == [] and proof.is_ok
            assert all(one.holes == 0 and one.until == one.head for one in proof.offsets)
        assert sum(log.ends([TRANSACTION_EVENTS]).values()) > sum(before.values()), "or nothing flowed"


def test_it_may_stop_before_the_swap_which_is_then_a_step_of_its_own(log: OwnLog) -> None:
    live = log.fresh().generations.get("warehouse", 1)
    with pytest.raises(RebuildRefused, match="no generation of warehouse stands proven"):
        swap(log.fresh(), log.stack, "warehouse", actor="test")
    built = rebuild(log.fresh(), log.stack, "warehouse", actor="test", swaps=False)
    assert not built.is_live and built.proof is not None and built.proof.is_ok
    assert log.fresh().generations.get("warehouse", 1) == live
    with traffic(log):
        time.sleep(1)
        swapped = swap(log.fresh(), log.stack, "warehouse", actor="test")
    assert swapped.is_live and swapped.proof is None
    assert log.fresh().generations.get("warehouse", 1) == live + 1
    assert is_green(log)


def test_a_rollback_catches_the_old_generation_up_and_returns_to_it(log: OwnLog) -> None:
    composition = settle(log)
    new = composition.generations.get("warehouse", 1)
    with traffic(log):
        time.sleep(1)
    settle(log)
    assert stored(composition, new - 1) < stored(composition, new), "the old one stands where it was replaced"
    result = rollback(log.fresh(), log.stack, "warehouse", actor="test")
    assert (result.generation, result.replaced) == (new - 1, new)
    assert result.caught_up_s > 0 and 0 < result.records < COUNT, "from its own checkpoint, not from the first event"
    assert log.fresh().generations.get("warehouse", 1) == new - 1
    assert is_green(log)
    with traffic(log):
        time.sleep(0.5)
    assert rollback(log.fresh(), log.stack, "warehouse", actor="test").generation == new, "and forward again the same way"
    assert is_green(log)


@pytest.mark.parametrize("name", ["archive", "graph"])
def test_the_graph_and_the_archive_have_a_way_back_too(log: OwnLog, name: str) -> None:
    log.composition = log.fresh()
    log.drive(name)
    old = rebuild(log.fresh(), log.stack, name, actor="test").replaced
    assert rollback(log.fresh(), log.stack, name, actor="test").generation == old
    composition = log.fresh()
    verifier = composition.verifier()
    proof = verifier.archive(composition.archive()) if name == "archive" else verifier.projection(composition.graph())
    assert [problem for problem in proof.problems if "behind the log" not in problem] == []


# Where it is killed: the build's end, before and after the proof, with the worker stopped, and after the log has the swap.
@pytest.mark.parametrize("place", ["_Job._prove", "_Job.swap", "_Job._events", "KafkaTransactions.close", "TablesTarget.after_event"])
def test_killed_anywhere_it_goes_on_from_where_it_was(log: OwnLog, place: str) -> None:
    settle(log)
    live = log.fresh().generations.get("warehouse", 1)
    script = f"""
import os, signal, sys
from infra import rebuild
from infra.composition import Composition
from infra.kafka.transactions import KafkaTransactions
from infra.rebuild import _Job
from infra.rebuild_targets import TablesTarget
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
    assert json.loads(json.dumps(found.as_json()))["replaces"] == composition.generations.get("warehouse", 1)
    assert sorted(str(file) for file in (log.stack.state.folder / "rebuild").rglob("*")) == before
    assert log.fresh().generations == composition.generations


def test_reactors_are_silent_while_projections_are_built_and_repaired(log: OwnLog) -> None:
    composition = settle(log)
    codec = RecordCodec(composition.clients.catalog)
    alert = AlertRaised("case-1", "ethereum:0x1", AlertReason.SCORE, 0.9, 0.5, "ethereum:0x2", 1, "{}", "m1", datetime.now(UTC))
    composition.producer.append([NewRecord(CASE_EVENTS, b"case-1", codec.encode_event(alert))])
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
    Runner(worker.source, worker.work, worker.policy).run(Event(), until=composition.log.ends([CASE_EVENTS]))
    assert waiting() == 1, "the reactor itself does send it"
