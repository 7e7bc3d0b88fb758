"""Kafka → warehouse and Kafka → wallet graph, each beside a bare load of the same rows into the same tables or patterns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from domain.log import Position
from infra.bench import bare_graph
from infra.bench.measure import Stage, rate
from infra.composition import Composition
from projections.decoding import decode
from projections.protocol import EventBatch, Excluded
from projections.runner import Flushed, Runner
from projections.wallet_graph_rows import frame
from projections.warehouse.facts import fact_rows
from projections.warehouse.tables import warehouse_metadata
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import TRANSACTION_EVENTS


def warehouse_stage(composition: Composition, stage: Stage, ours: int, bare: int, until: Position) -> None:
    """One repetition into two fresh generations: ours from Kafka, then a bare ADBC load of the very rows that ours wrote.

    Ours stops when every partition has reached `until`, some of them far beyond; both rates count the events that it took. The
    bare load writes their facts and dimensions into the same tables with the same keys and indexes: facts in batches as
    large as the worker's, a transaction each, then each dimension at once. Its rows were shaped beforehand and its dimension
    keys are known to be new; what remains for it to do is the load.
    """
    projection, plain = composition.warehouse(ours), composition.warehouse(bare)
    worker = composition.sink("warehouse", projection, f"bench-warehouse-{ours}-{time.time_ns()}")
    projection.load_position()
    plain.load_position()
    taken = 0

    def count(flushed: Flushed) -> None:
        nonlocal taken
        taken += flushed.records

    seconds = 1 / rate(1, lambda: Runner(worker.source, worker.work, worker.policy, count).run(Event(), until))
    batches = list(_decoded(composition, projection.reads, projection.load_position()))
    shaped = [(fact.table, rows) for batch in _of_size(batches, worker.policy.max_records) for fact, rows in fact_rows(batch)]
    shaped += _dimension_rows(projection, batches)

    def load() -> None:
        for table, rows in shaped:
            with plain._transaction("loading bare rows") as cursor:
                cursor.adbc_ingest(table, rows, mode="append")

    stage.add(taken / seconds, rate(taken, load))
    plain.close()
    projection.close()


def graph_stage(composition: Composition, stage: Stage, start: Position, until: Position, *, is_bare_first: bool) -> None:
    """One repetition on the events between two positions: ours from Kafka and a bare UNWIND load of the same, each into wallets of its own.

    Take turns with `is_bare_first`: the second of a pair meets a warmer server and a larger database.
    """
    graph = composition.graph()
    graph.prepare()
    worker = composition.sink("graph", graph, f"bench-graph-{time.time_ns()}")
    batches = list(_decoded(composition, {"TransactionRecorded": ()}, until, start))
    count = sum(batch.rows for batch in batches)
    table = pa.concat_tables([batch.tables["TransactionRecorded"] for batch in batches])
    step = worker.policy.max_records  # flows are added up over as many events as ours adds up
    parts = (frame(EventBatch({"TransactionRecorded": table.slice(at, step)}), "TransactionRecorded") for at in range(0, count, step))
    chunks = [bare_graph.shape(part) for part in parts if part is not None]

    def ours() -> float:
        return rate(count, lambda: Runner(worker.source, worker.work, worker.policy).run(Event(), until))

    def bare() -> float:
        return rate(count, lambda: bare_graph.load(composition.clients.neo4j, composition.settings.neo4j.database, chunks))

    if is_bare_first:
        bare_rate, our_rate = bare(), ours()
    else:
        our_rate, bare_rate = ours(), bare()
    stage.add(our_rate, bare_rate)


def _of_size(batches: list[EventBatch], rows: int) -> Iterator[EventBatch]:
    """The same transactions in batches of `rows`."""
    whole = pa.concat_tables([batch.tables["TransactionRecorded"] for batch in batches])
    for at in range(0, whole.num_rows, rows):
        yield EventBatch({"TransactionRecorded": whole.slice(at, rows)})


def _dimension_rows(projection: Any, batches: list[EventBatch]) -> list[tuple[str, pa.Table]]:
    """What the dimensions hold in the end, with integers as wide as the tables' own."""
    tables = warehouse_metadata().tables
    found = []
    for name, rows in projection.expected(iter(batches), Excluded()):
        if name.startswith("dim_"):
            narrow = {c.name for c in tables[name].columns if type(c.type) is sa.Integer}
            fields = [pa.field(f.name, pa.int32() if f.name in narrow else f.type) for f in rows.schema]
            found.append((name, rows.cast(pa.schema(fields))))
    return found


def _decoded(
    composition: Composition, reads: dict[str, tuple[str, ...]], until: Position, start: Position | None = None
) -> Iterator[EventBatch]:
    codec = ColumnCodec(composition.clients.catalog, reads)
    for batch in composition.log.read([TRANSACTION_EVENTS], start or {}, until):
        yield decode(codec, [batch])[0]
