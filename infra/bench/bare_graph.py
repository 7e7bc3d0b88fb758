"""The bare counterpart of the wallet graph: three UNWIND statements on rows shaped beforehand.

It leaves what the projection leaves of the same transactions: wallets with network, caption and degree, SENT with every
property, FLOW with its exact sums, caption and times, under the same constraints and indexes. Each statement commits by
itself, in one session. Left out is what makes a projection: Kafka, decoding, screening, shaping, the checkpoint, one
transaction for all of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import neo4j
import polars as pl

from projections import wallet_graph_rows as rows_of
from projections.wallet_graph_statements import UNIT

MARK: Final = "~"
"""Stands before each wallet and transaction id: the bare load shares the database and must find none of it there."""
CHUNK: Final = 10_000  # rows a statement

_TIME = "datetime({{epochSeconds: {0} / 1000000, nanosecond: ({0} % 1000000) * 1000}})"
_WALLETS = """
UNWIND $rows AS r
MERGE (w:Wallet {wallet_id: r[0]})
ON CREATE SET w.network = r[1], w.caption = r[2], w.degree = r[3]
ON MATCH SET w.degree = w.degree + r[3]
"""
_SENT = f"""
UNWIND $rows AS r
MATCH (a:Wallet {{wallet_id: r[0]}}) MATCH (b:Wallet {{wallet_id: r[1]}})
CREATE (a)-[:SENT {{tx_id: r[2], seq: r[3], amount: r[4], amount_float: r[5], asset: r[6], status: r[7], kind: r[8],
                    occurred_at: {_TIME.format("r[9]")}, topic: r[10], partition: r[11], offset: r[12]}}]->(b)
"""
# A sum may carry from 10^-18 parts into whole units and from there into 10^18: known only once the old sum is read.
_FLOW = f"""
UNWIND $rows AS r
MATCH (a:Wallet {{wallet_id: r[0]}}) MATCH (b:Wallet {{wallet_id: r[1]}})
MERGE (a)-[f:FLOW {{asset: r[2]}}]->(b)
ON CREATE SET f.transactions = 0, f.sum_high = 0, f.sum_whole = 0, f.sum_parts = 0,
              f.first_at = {_TIME.format("r[7]")}, f.last_at = {_TIME.format("r[8]")}
WITH r, f, f.sum_parts + r[6] AS parts, {_TIME.format("r[7]")} AS first_at, {_TIME.format("r[8]")} AS last_at
WITH r, f, first_at, last_at, parts % {UNIT} AS parts, f.sum_whole + r[5] + parts / {UNIT} AS whole
WITH r, f, first_at, last_at, parts, whole % {UNIT} AS whole, f.sum_high + r[4] + whole / {UNIT} AS high
WITH r, f, first_at, last_at, parts, whole, high, high * 1e18 + whole + parts / 1e18 AS amount
SET f.transactions = f.transactions + r[3], f.sum_high = high, f.sum_whole = whole, f.sum_parts = parts,
    f.amount_float = amount,
    f.caption = CASE WHEN amount >= 0.01 THEN toString(round(amount, 2)) ELSE '<0.01' END + ' ' + left(r[2], 12),
    f.first_at = CASE WHEN first_at < f.first_at THEN first_at ELSE f.first_at END,
    f.last_at = CASE WHEN last_at > f.last_at THEN last_at ELSE f.last_at END
"""


@dataclass(frozen=True, slots=True)
class BareChunk:
    """The rows of one run of transactions, flows aggregated over it, in the order of the statements' columns."""

    wallets: list[list[Any]]
    sent: list[list[Any]]
    flows: list[list[Any]]


def shape(transactions: pl.DataFrame) -> BareChunk:
    """The rows of transactions as `wallet_graph_rows.frame` gives them, ids marked."""
    marked = ((pl.lit(MARK) + pl.col(name)).alias(name) for name in ("tx_id", "source_wallet_id", "target_wallet_id"))
    transactions = transactions.with_columns(*marked)
    ids = pl.col("wallet_id")
    wallets = rows_of.wallets_of(transactions).with_columns(rows_of.network(ids).alias("network"), rows_of.captions(ids).alias("caption"))
    flows = rows_of.flows(transactions)
    sums = [rows_of.three_integers(total) for total in rows_of.exact_sums(flows)]
    flow_rows = flows.select("source", "target", "asset", "transactions", "first_at", "last_at").rows()
    return BareChunk(
        [list(row) for row in wallets.select("wallet_id", "network", "caption", "degree").iter_rows()],
        [list(row) for row in rows_of.sent(transactions).iter_rows()],
        [[*row[:4], *parts, *row[4:]] for row, parts in zip(flow_rows, sums, strict=True)],
    )


def load(driver: neo4j.Driver, database: str, chunks: list[BareChunk]) -> None:
    """Write the chunks one after another."""
    with driver.session(database=database) as session:
        for chunk in chunks:
            for cypher, rows in ((_WALLETS, chunk.wallets), (_SENT, chunk.sent), (_FLOW, chunk.flows)):
                for some in _pieces(rows):
                    session.run(cypher, rows=some).consume()


def _pieces(rows: list[list[Any]]) -> Iterator[list[list[Any]]]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]
