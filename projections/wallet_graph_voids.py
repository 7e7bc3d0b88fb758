"""Taking transactions back in the wallet graph: SENT becomes VOIDED, and wallets and flows count it no longer.

Topics come in any order, so a void may meet its transaction here, come before it, or come after the revision that replaced it. The
outcome is the same: of a tx_id only the revision with the largest seq can be SENT, and it is not if a void with that seq or a larger
one is known. Used only where the graph holds a void, or a tx_id comes a second time: nobody else pays for it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import neo4j
import polars as pl

from domain.values import EXACT
from graph.features import NOT_MOVED
from projections import wallet_graph_rows as rows_of
from projections import wallet_graph_statements as cypher
from projections.wallet_graph_statements import UNIT, Statement

Create = Callable[[neo4j.ManagedTransaction, pl.DataFrame], None]
_MARKS = {"void_seq": pl.Int64, "void_reason": pl.String, "voided_at": pl.Int64}
_Flow = tuple[str, str, str]


def holds_voids(tx: neo4j.ManagedTransaction) -> bool:
    """Whether the graph knows of any void; a count that the store keeps."""
    return bool(tx.run(cypher.COUNT_VOIDS).single(strict=True)["voids"])


def take_back(tx: neo4j.ManagedTransaction, voids: pl.DataFrame, chunk_rows: int) -> None:
    """Remember the voids, and take back what they mean of what the graph holds.

    Args:
        voids: rows of `wallet_graph_rows.voids`; of one tx_id in order of seq.
    """
    _run(tx, cypher.KEEP_VOIDS, voids, chunk_rows)
    marks = voids.select("tx_id", "seq", **rows_of.mark_columns())
    # One void a tx_id at a time: the first one that a revision meets is the one that took it back.
    number = marks.with_columns(pl.int_range(pl.len()).over("tx_id", order_by="seq").alias("number"))
    for _, turn in sorted(number.group_by("number"), key=lambda one: one[0]):
        _run(tx, cypher.EXPLAIN_VOIDED, turn, chunk_rows)
        _void(tx, turn, chunk_rows)


def write_marked(tx: neo4j.ManagedTransaction, transactions: pl.DataFrame, create: Create, chunk_rows: int) -> None:
    """Write transactions, each as what it is by the voids and revisions known.

    Args:
        create: writes those that stand.
    """
    ids = transactions.select("tx_id").unique()
    known = _found(tx, cypher.FIND_VOIDS, ids, {"tx_id": pl.String, "seq": pl.Int64, "reason": pl.String, "known_at": pl.Int64}, chunk_rows)
    sent = _found(tx, cypher.FIND_SENT, ids, {"tx_id": pl.String, "seq": pl.Int64}, chunk_rows)
    marked = rows_of.marked(transactions, known)
    ours = rows_of.standing(marked).select("tx_id", pl.col("_seq").alias("seq"))
    newest = pl.concat([ours, sent]).group_by("tx_id").agg(pl.col("seq").max().alias("newest"))
    # Replaced by a revision whose void has not come yet: it will say why.
    replaced = sent.join(newest, on="tx_id").filter(pl.col("seq") < pl.col("newest")).select("tx_id", "seq")
    _void(tx, replaced.with_columns(pl.lit(None, kind).alias(name) for name, kind in _MARKS.items()), chunk_rows)
    is_old = pl.col("void_seq").is_not_null() | (pl.col("_seq") < pl.col("newest").fill_null(-1))
    marked = marked.join(newest, on="tx_id", how="left", maintain_order="left").with_columns(is_old.alias("is_old"))
    create(tx, marked.filter(~pl.col("is_old")).drop("newest", "is_old", *_MARKS))
    old = rows_of.sides(marked.filter(pl.col("is_old")))
    _run(tx, cypher.CREATE_VOIDED, pl.concat([rows_of.sent(old), old.select(*_MARKS)], how="horizontal"), chunk_rows)


def _void(tx: neo4j.ManagedTransaction, marks: pl.DataFrame, chunk_rows: int) -> None:
    """SENT up to the seq of each row becomes VOIDED; flows lose what it moved."""
    transactions: Counter[_Flow] = Counter()
    parts: defaultdict[_Flow, int] = defaultdict(int)
    for row in _run(tx, cypher.VOID_SENT, marks, chunk_rows):
        if row["status"] not in NOT_MOVED:
            flow = (row["source"], row["target"], row["asset"])
            transactions[flow] += 1
            parts[flow] += int(Decimal(row["amount"]).scaleb(18, EXACT))
    if not transactions:
        return
    flows = pl.DataFrame(list(transactions), schema=["source", "target", "asset"], orient="row")
    lowered: list[list[Any]] = []
    emptied: list[list[Any]] = []
    for row in _run(tx, cypher.READ_FLOWS, flows, chunk_rows):
        flow = (row["source"], row["target"], row["asset"])
        left = row["transactions"] - transactions[flow]
        rest = (row["high"] * UNIT + row["whole"]) * UNIT + row["parts"] - parts[flow]
        if left:
            lowered.append([*flow, left, *rows_of.three_integers(rest), list(NOT_MOVED)])
        else:
            emptied.append(list(flow))
    for statement, rows in ((cypher.LOWER_FLOWS, lowered), (cypher.DROP_FLOWS, emptied)):
        for start in range(0, len(rows), chunk_rows):
            tx.run(statement.cypher, rows=rows[start : start + chunk_rows]).consume()


def _found(tx: neo4j.ManagedTransaction, statement: Statement, ids: pl.DataFrame, schema: dict[str, Any], chunk_rows: int) -> pl.DataFrame:
    return pl.DataFrame(_run(tx, statement, ids, chunk_rows), schema=schema)


def _run(tx: neo4j.ManagedTransaction, statement: Statement, rows: pl.DataFrame, chunk_rows: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    columns: Sequence[str] = statement.columns
    packed = list(map(list, rows.select(columns).rows()))
    for start in range(0, len(packed), chunk_rows):
        found += tx.run(statement.cypher, rows=packed[start : start + chunk_rows]).data()
    return found
