"""kill -9 of every worker in the middle of its work, more than once: afterwards every store equals the log, and nothing is double."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from domain.log import Position
from infra.simulator.delivery import commands
from infra.simulator.generator import SimulatorOptions, simulate
from infra.stack import PartDown
from projections.verify import Proof
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

STORES = ("archive", "warehouse", "graph")
WORKERS = ("command-handler", *STORES)
COUNT, CHUNK = 6_000, 50
KILLS = 2  # of each worker
DEADLINE_S = 240.0


@pytest.fixture(scope="module")
def log() -> Iterator[OwnLog]:
    with own_log(["kafka", "registry", "s3", "postgres", "neo4j"]) as log:
        for name in WORKERS:
            log.stack.start_worker(name, [sys.executable, "-m", "infra.cli", "run", name])
        yield log


class Progress:
    """How far each worker has come, read from where it stores its position."""

    def __init__(self, log: OwnLog) -> None:
        composition = log.fresh()
        admin = composition.clients.admin
        self._log = log
        stores = {"archive": composition.archive(), "warehouse": composition.warehouse(), "graph": composition.graph()}
        self._position: dict[str, Callable[[], Position]] = {name: store.load_position for name, store in stores.items()}
        self._position["command-handler"] = lambda: admin.committed("tidemark-command-handler", [COMMANDS])
        self._topics = {name: store.topics for name, store in stores.items()} | {"command-handler": (COMMANDS,)}

    def done(self, name: str) -> int:
        return sum(self._position[name]().values())

    def is_at_head(self, name: str) -> bool:
        position = self._position[name]()
        return all(position.get(tp, 0) >= end for tp, end in self._log.ends(self._topics[name]).items())


def until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline, f"{what} within {DEADLINE_S:.0f} s"
        time.sleep(0.05)


def send_slowly(log: OwnLog, stop: threading.Event) -> None:
    """Every transaction once, every fifth chunk twice, for a minute, so that there is work whenever a worker comes back."""
    simulation = simulate(SimulatorOptions(count=COUNT, seed=11))
    producer = log.composition.producer
    for i, chunk in enumerate(commands(simulation, log.composition.clients.catalog, chunk_rows=CHUNK)):
        for _ in range(2 if i % 5 == 0 else 1):
            producer.send(COMMANDS, chunk.keys, chunk.values)
        producer.flush()
        stop.wait(0.5)  # once the killing is over the rest is sent at once


def kill_while_it_works(log: OwnLog, progress: Progress, name: str, delay_s: float) -> int:
    """Wait until the worker has stored something since now and a moment more, then end it; returns its pid."""
    before = progress.done(name)
    until(lambda: progress.done(name) > before, f"{name} works")
    time.sleep(delay_s)
    while True:
        try:
            return log.stack.kill(name)
        except PartDown:
            time.sleep(0.05)


def test_every_worker_killed_in_the_middle_ends_with_equal_stores(log: OwnLog) -> None:
    progress = Progress(log)
    until(lambda: all(log.stack.status()[name].is_ready for name in WORKERS), "the workers run")
    stop = threading.Event()
    sender = threading.Thread(target=send_slowly, args=(log, stop))
    sender.start()
    behind: Counter[str] = Counter()
    moments = random.Random(4)
    pids: set[int] = set()
    for _ in range(KILLS):
        for name in WORKERS:
            pids.add(kill_while_it_works(log, progress, name, moments.uniform(0.0, 0.6)))
            behind[name] += not progress.is_at_head(name)
    stop.set()
    sender.join()
    for name in WORKERS:
        until(lambda name=name: progress.is_at_head(name), f"{name} reaches the head")  # type: ignore[misc]
    assert len(pids) == KILLS * len(WORKERS)
    assert sum(behind.values()) > len(WORKERS), behind  # it was work that they were killed in
    assert all(log.stack.status()[name].restarts >= KILLS for name in WORKERS)
    assert {proof.store: proof.problems for proof in proofs(log) if not proof.is_ok} == {}


def test_afterwards_nothing_is_double_and_nothing_is_missing(log: OwnLog) -> None:
    found = {proof.store: proof for proof in proofs(log)}
    assert found["log"].rows["transactions"] == COUNT
    assert found["log"].excluded["recorded"] == COUNT
    assert found["log"].excluded["duplicates"] == found["log"].records - COUNT > 0
    assert found["warehouse"].rows["fact_transaction"] == COUNT
    codec = RecordCodec(log.composition.clients.catalog)
    ids = Counter(codec.decode(v)[1]["tx_id"] for b in log.composition.log.read([TRANSACTION_EVENTS], {}) for v in b.values)
    assert (len(ids), max(ids.values())) == (COUNT, 1)


def proofs(log: OwnLog) -> list[Proof]:
    composition: Any = log.fresh()
    verifier = composition.verifier()
    stores = [verifier.projection(store) for store in (composition.warehouse(), composition.graph())]
    return [verifier.log(), verifier.archive(composition.archive()), *stores]
