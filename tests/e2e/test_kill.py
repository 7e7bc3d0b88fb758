"""kill -9 of every worker in the middle of its work, more than once: afterwards every store equals the log, and nothing is double."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from domain.log import Position
from infra.simulator.delivery import CommandChunk, commands
from infra.simulator.generator import SimulatorOptions, simulate
from projections.verify import Proof
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

STORES = ("archive", "warehouse", "graph")
WORKERS = ("command-handler", *STORES)
COUNT = 6_000
KILLS = 2  # of each worker
DEADLINE_S = 480.0
# From a burst to the kill: the handler stores at once, the stores gather for 0.5 s and the archive for 2 s.
MOMENTS_S = {"command-handler": (0.0, 0.1), "archive": (0.0, 1.5), "warehouse": (0.0, 0.3), "graph": (0.0, 0.3)}


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres", "neo4j"]) as log:
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

    def is_at_head(self, name: str) -> bool:
        position = self._position[name]()
        return all(position.get(tp, 0) >= end for tp, end in self._log.ends(self._topics[name]).items())


def until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline, f"{what} within {DEADLINE_S:.0f} s"
        time.sleep(0.05)


def kill_with_work_at_hand(log: OwnLog, progress: Progress, name: str, chunk: CommandChunk, delay_s: float) -> bool:
    """Send a burst to an idle worker and end it before, while or just after it stores; tells whether work was left."""
    until(lambda: log.stack.status()[name].is_ready and progress.is_at_head(name), f"{name} is at the head")
    until(lambda: progress.is_at_head("command-handler"), "the handler is at the head")
    events = sum(log.ends([TRANSACTION_EVENTS]).values())
    producer = log.composition.producer
    for _ in range(2):  # the second time they are duplicates
        producer.send(COMMANDS, chunk.keys, chunk.values)
    producer.flush()
    if name != "command-handler":  # a store has work once the handler has made events of the burst
        until(lambda: sum(log.ends([TRANSACTION_EVENTS]).values()) > events, "the burst is recorded")
    time.sleep(delay_s)
    log.stack.kill(name)
    return not progress.is_at_head(name)


def test_every_worker_killed_in_the_middle_ends_with_equal_stores(log: OwnLog) -> None:
    progress = Progress(log)
    moments = random.Random(4)
    simulation = simulate(SimulatorOptions(count=COUNT, seed=11))
    chunks = commands(simulation, log.composition.clients.catalog, chunk_rows=COUNT // (KILLS * len(WORKERS)))
    had_work: Counter[str] = Counter()
    for _ in range(KILLS):
        for name in WORKERS:
            had_work[name] += kill_with_work_at_hand(log, progress, name, next(chunks), moments.uniform(*MOMENTS_S[name]))
    assert next(chunks, None) is None
    for name in WORKERS:
        until(lambda name=name: progress.is_at_head(name), f"{name} reaches the head")  # type: ignore[misc]
    assert all(had_work[name] for name in WORKERS), had_work  # it was work that each was killed in
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
