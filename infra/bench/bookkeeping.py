"""What exactly-once costs: the share of a worker's time that goes into moving its checkpoint, for small batches and for its own size.

Of the sinks the statements themselves are timed, inside the transactions that they are part of; of the command handler a whole Kafka
transaction that holds offsets and nothing else, which is more than its share. The archive has none to time: its objects are its position.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import neo4j
from adbc_driver_manager.dbapi import Cursor

from domain.log import Position
from infra.bench.log_stages import handler_work
from infra.bench.measure import spread
from infra.bench.stream import Stream
from infra.composition import HANDLER_BATCH, Composition
from infra.read_models import read_model
from projections.runner import Flushed, FlushPolicy, Runner
from projections.wallet_graph import WalletGraphProjection
from projections.warehouse import WarehouseProjection
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS

SMALL = 5_000
BATCHES = 8  # of each size
_COMMITS = 20


class _Warehouse(WarehouseProjection):
    spent_s = 0.0

    def _advance(self, cursor: Cursor, before: Position, after: Position) -> None:
        began = time.perf_counter()
        super()._advance(cursor, before, after)
        self.spent_s += time.perf_counter() - began


class _WalletGraph(WalletGraphProjection):
    spent_s = 0.0

    def _move_checkpoint(self, tx: neo4j.ManagedTransaction, before: Position, after: Position) -> None:
        began = time.perf_counter()
        super()._move_checkpoint(tx, before, after)
        self.spent_s += time.perf_counter() - began


def bookkeeping(composition: Composition, stream: Stream, folder: Path) -> dict[str, dict[str, Any]]:
    """Shares of time by worker and batch size, each with its range over the batches.

    Args:
        stream: commands for the handler, `BATCHES` batches of each size.
        folder: for the handler's index.
    """
    warehouse = _Warehouse(composition.warehouse_dsn, 300)
    graph = _WalletGraph(composition.clients.neo4j, composition.settings.neo4j.database)
    graph.prepare()
    found: dict[str, dict[str, Any]] = {"command-handler": {}, "warehouse": {}, "graph": {}}
    for size in (SMALL, read_model("warehouse").policy.max_records):
        found["warehouse"][str(size)] = spread(_of_sink(composition, "warehouse", warehouse, size), 4)
    for size in (SMALL, read_model("graph").policy.max_records):
        found["graph"][str(size)] = spread(_of_sink(composition, "graph", graph, size), 4)
    for size in (SMALL, HANDLER_BATCH):
        found["command-handler"][str(size)] = spread(_of_handler(composition, stream, size, folder), 4)
    warehouse.close()
    return found


def _of_sink(composition: Composition, name: str, projection: Any, size: int) -> list[float]:
    worker = composition.sink(name, projection, f"bench-bookkeeping-{name}-{time.time_ns()}")
    position = projection.load_position()
    ends = composition.log.ends([TRANSACTION_EVENTS])
    starts = {place: position.get(place, 0) for place in ends}
    share = size * BATCHES // len(ends)
    until = {place: min(end, starts[place] + share) for place, end in ends.items()}
    shares: list[float] = []
    before = projection.spent_s

    def flushed(report: Flushed) -> None:
        nonlocal before
        if report.records >= size // 2:  # the last one may be a remnant, whose cost is all fixed
            shares.append((projection.spent_s - before) / report.seconds)
        before = projection.spent_s

    Runner(worker.source, worker.work, FlushPolicy(size, 1.0), flushed).run(Event(), until)
    return shares


def _of_handler(composition: Composition, stream: Stream, size: int, folder: Path) -> list[float]:
    composition.producer.send(COMMANDS, *stream.take(size * BATCHES))
    composition.producer.flush()
    source, work, log, seen = handler_work(composition, folder)
    seconds: list[float] = []
    policy = FlushPolicy(size, 1.0, gathers=True)
    until = composition.log.ends([COMMANDS])

    def flushed(report: Flushed) -> None:
        if report.records >= size // 2:
            seconds.append(report.seconds)

    Runner(source, work, policy, flushed).run(Event(), until)
    commits = sorted(_timed(lambda: log.commit((), (), until)) for _ in range(_COMMITS))
    seen.close()
    log.close()
    return [commits[len(commits) // 2] / one for one in seconds]


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
