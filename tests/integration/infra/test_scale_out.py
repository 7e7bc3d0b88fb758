"""Several processes of one worker: they share partitions while traffic flows, stand still, wake up and take over; nothing is double."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from domain.errors import InvalidValue
from infra.kafka.source import SESSION_MS
from infra.log_setup import scale_worker
from infra.partitions import GrownElsewhere
from infra.topic_growth import grow, sizes
from schema_registry.contracts import SCORE_EVENTS, TRANSACTION_EVENTS, WALLET_EVENTS
from tests.integration.infra.live_log import is_green, live_log, settle, traffic
from tests.integration.infra.own_log import OwnLog
from tests.shared_servers import SharedServers

WAREHOUSES = ("warehouse", "warehouse.2", "warehouse.3")


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with live_log(shared_servers, ["kafka", "registry", "s3", "postgres"], ["archive"]) as found:
        yield found


def told(log: OwnLog, process: str) -> dict[str, Any]:
    """What a process last said of itself; nothing before it has."""
    file = log.stack.state.folder / "workers" / f"{process}.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return found


def until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 180
    while not reached():
        assert time.monotonic() < deadline, f"not within 180 s: {what}"
        time.sleep(0.1)


def taken(log: OwnLog, process: str) -> int:
    return int(told(log, process).get("records", 0))


def pid_of(log: OwnLog, process: str) -> int:
    pid = log.stack.status()[process].pid
    assert pid is not None
    return pid


def test_workers_that_come_and_go_share_the_partitions_and_double_nothing(log: OwnLog) -> None:
    with traffic(log):
        assert scale_worker(log.stack, "warehouse", 3) == (["warehouse.2", "warehouse.3"], [])
        until(lambda: all(taken(log, process) for process in WAREHOUSES), "each of the three takes records")
        assert scale_worker(log.stack, "warehouse", 2) == ([], ["warehouse.3"])
        before = taken(log, "warehouse") + taken(log, "warehouse.2")
        until(lambda: taken(log, "warehouse") + taken(log, "warehouse.2") > before, "the others go on")
    assert is_green(log)
    assert [log.stack.status()[process].restarts for process in WAREHOUSES[:2]] == [0, 0], "no handing over ended one with an error"


def test_one_that_stood_still_finds_its_partitions_gone_and_writes_nothing(log: OwnLog) -> None:
    frozen = pid_of(log, "warehouse.2")
    with traffic(log):
        until(lambda: "transaction-events/" in str(told(log, "warehouse.2").get("position")), "it has partitions of its own")
        os.kill(frozen, signal.SIGSTOP)
        time.sleep(1)
    try:
        settle(log)  # at the head: the other one has taken its partitions, from where the store says
    finally:
        os.kill(frozen, signal.SIGCONT)
    with traffic(log):
        before = taken(log, "warehouse.2")
        until(lambda: taken(log, "warehouse.2") > before or log.stack.status()["warehouse.2"].restarts > 0, "it shares again")
    assert is_green(log)


def test_all_of_them_stood_still_and_nobody_took_over(log: OwnLog) -> None:
    pids = [pid_of(log, process) for process in WAREHOUSES[:2]]
    with traffic(log):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(SESSION_MS / 1000 + 2)  # until Kafka has given them up
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert is_green(log), "what they had in hand was stored once or read again, nothing was passed over"


def test_a_topic_grows_while_everything_runs(log: OwnLog) -> None:
    assert grow(log.fresh(), TRANSACTION_EVENTS, 9, is_dry=True).found == 6
    assert len(log.fresh().clients.admin.partitions([TRANSACTION_EVENTS])) == 6, "a dry run changes nothing"
    with traffic(log):
        assert grow(log.fresh(), TRANSACTION_EVENTS, 9).found == 6
        until(lambda: any(log.ends([TRANSACTION_EVENTS]).get((TRANSACTION_EVENTS, p)) for p in (6, 7, 8)), "the new ones are written to")
    log.composition = log.fresh()
    log.drive("archive")
    assert is_green(log)
    verifier = log.composition.verifier()
    assert verifier.log().is_ok, "the order is that of seq, whatever the partition"
    assert verifier.archive(log.composition.archive()).is_ok
    store = log.composition.warehouse()
    assert any(store.load_position().get((TRANSACTION_EVENTS, p)) for p in (6, 7, 8)), "its checkpoints know the new ones"
    assert grow(log.fresh(), TRANSACTION_EVENTS, 9).found == 9, "again it changes nothing"
    for topic, partitions, reason in ((WALLET_EVENTS, 12, "order of its keys"), (TRANSACTION_EVENTS, 6, "none can be taken away")):
        with pytest.raises(InvalidValue, match=reason):
            grow(log.fresh(), topic, partitions)


def test_a_topic_that_somebody_else_has_grown_stops_its_readers_until_it_is_taken_in(log: OwnLog) -> None:
    composition = settle(log)
    composition.clients.admin.grow(SCORE_EVENTS, 8)
    with pytest.raises(
        GrownElsewhere,
        match=f"topic {SCORE_EVENTS} has a partition 6, the log knows 6 partitions .*`tidemark topics grow {SCORE_EVENTS} --partitions N`",
    ):
        log.fresh().worker("warehouse")
    until(lambda: "was grown by other means" in str(told(log, "warehouse").get("last_error")), "the one that runs meets them and says so")
    assert grow(log.fresh(), SCORE_EVENTS, 8).known == 6
    assert {size.topic: size.known for size in sizes(log.fresh())}[SCORE_EVENTS] == 8
    until(lambda: told(log, "warehouse").get("state") in ("ready", "running"), "it goes on by itself")
    with traffic(log):
        time.sleep(0.5)
    assert is_green(log)


def test_a_standby_handler_takes_over_from_one_that_dies_stops_or_stands_still(log: OwnLog) -> None:
    handlers = {"command-handler", "command-handler.2"}

    def standing_by() -> set[str]:
        pids = {name: part.pid for name, part in log.stack.status().items() if name in handlers}
        return {name for name, pid in pids.items() if (told(log, name).get("pid"), told(log, name).get("state")) == (pid, "standby")}

    def active() -> str:
        until(lambda: len(standing_by()) == 1, "one works and one stands by")
        return (handlers - standing_by()).pop()

    def recording_goes_on(after: Callable[[], None]) -> None:
        with traffic(log):
            after()
            before = sum(log.ends([TRANSACTION_EVENTS]).values())
            until(lambda: sum(log.ends([TRANSACTION_EVENTS]).values()) > before, "transactions go on being recorded")

    scale_worker(log.stack, "command-handler", 2)
    assert active() == "command-handler", "who joins later does not take over"
    recording_goes_on(lambda: log.stack.kill("command-handler"))
    stopped = active()
    recording_goes_on(lambda: log.stack.stop_worker(stopped))
    assert standing_by() == set(), "the other one has taken over"
    scale_worker(log.stack, "command-handler", 2)
    frozen = active()
    pid = pid_of(log, frozen)
    assert frozen != stopped, "who comes back finds its place taken"
    recording_goes_on(lambda: os.kill(pid, signal.SIGSTOP))
    os.kill(pid, signal.SIGCONT)
    recording_goes_on(lambda: None)
    until(lambda: standing_by() == {frozen}, "the one that stood still is fenced, started again and stands by")
    assert is_green(log)
    proof = log.fresh().verifier().log()
    assert proof.is_ok and proof.excluded.get("duplicates", 0) == 0, "no command was decided twice"
