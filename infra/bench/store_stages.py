"""Kafka → warehouse and Kafka → wallet graph, each beside a bare load of the same rows into the same tables or patterns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event
from typing import Any

import neo4j
import polars as pl
import pyarrow as pa
import sqlalchemy as sa

from domain.log import Position
from infra.bench.measure import Stage, rate
from infra.composition import Composition
from projections.decoding import decode
from projections.protocol import EventBatch, Excluded
from projections.runner import Flushed, Runner
from projections.warehouse.facts import fact_rows
from projections.warehouse.tables import warehouse_metadata
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import TRANSACTION_EVENTS

CHUNK = 10_000  # rows a statement, as the projection's own
_MERGE = "UNWIND $rows AS id MERGE (:Wallet {wallet_id: id})"
_SENT = """
UNWIND $rows AS r MATCH (a:Wallet {wallet_id: r[0]}) MATCH (b:Wallet {wallet_id: r[1]})
CREATE (a)-[:SENT {tx_id: r[2], seq: r[3], amount: r[4], amount_float: r[5], asset: r[6], status: r[7], kind: r[8], occurred_at: r[9],
                   partition: r[10], offset: r[11]}]->(b)
"""
_FLOW = """
UNWIND $rows AS r MATCH (a:Wallet {wallet_id: r[0]}) MATCH (b:Wallet {wallet_id: r[1]})
MERGE (a)-[f:FLOW {asset: r[2]}]->(b)
ON CREATE SET f.transactions = r[3], f.amount_float = r[4], f.first_at = r[5], f.last_at = r[6]
ON MATCH SET f.transactions = f.transactions + r[3], f.amount_float = f.amount_float + r[4], f.last_at = r[6]
"""


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


def graph_stage(composition: Composition, stage: Stage, start: Position, until: Position) -> None:
    """One repetition on the events between two positions: ours from Kafka, then a bare UNWIND load of the same under other wallet ids."""
    graph = composition.graph()
    graph.prepare()
    worker = composition.sink("graph", graph, f"bench-graph-{time.time_ns()}")
    batches = list(_decoded(composition, {"TransactionRecorded": ()}, until, start))
    count = sum(batch.rows for batch in batches)
    our_rate = rate(count, lambda: Runner(worker.source, worker.work, worker.policy).run(Event(), until))
    frame = pl.concat([_frame(batch.tables["TransactionRecorded"]) for batch in batches])
    chunks = [_lists(frame.slice(at, CHUNK)) for at in range(0, len(frame), CHUNK)]
    driver: neo4j.Driver = composition.clients.neo4j

    def load() -> None:
        with driver.session(database=composition.settings.neo4j.database) as session:
            for wallets, sent, flows in chunks:
                session.run(_MERGE, rows=wallets).consume()
                session.run(_SENT, rows=sent).consume()
                session.run(_FLOW, rows=flows).consume()

    stage.add(our_rate, rate(count, load))


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


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.DataFrame(pl.from_arrow(table))
    return frame.filter(pl.col("source_wallet_id").is_not_null() & pl.col("target_wallet_id").is_not_null()).select(
        ("bare:" + pl.col("source_wallet_id")).alias("a"), ("bare:" + pl.col("target_wallet_id")).alias("b"),
        ("bare:" + pl.col("tx_id")).alias("tx_id"), "_seq",
        pl.col("amount").cast(pl.String).alias("text"), pl.col("amount").cast(pl.Float64).alias("number"), "asset", "status", "kind",
        pl.col("occurred_at").dt.epoch("us").alias("at"), "_partition", "_offset",
    )  # fmt: skip


def _lists(frame: pl.DataFrame) -> tuple[list[str], list[list[object]], list[list[object]]]:
    wallets = pl.concat([frame["a"], frame["b"]]).unique().to_list()
    flows = frame.group_by("a", "b", "asset").agg(
        pl.len(), pl.col("number").sum(), pl.col("at").min().alias("first"), pl.col("at").max().alias("last")
    )
    return wallets, [list(row) for row in frame.rows()], [list(row) for row in flows.rows()]
