"""The wallet graph in Neo4j: wallets, each transaction between two of them, flows per pair, scores, alerts and
embeddings.

    (:Wallet {wallet_id})-[:SENT {tx_id, amount, …}]->(:Wallet)      one a transaction with two sides
    (:Wallet)-[:VOIDED {…, void_reason}]->(:Wallet)                  one that was taken back, which no flow counts; (:Void {tx_id, seq})
    (:Wallet)-[:FLOW {asset, transactions, sum_high, sum_whole, sum_parts, first_at, last_at}]->(:Wallet)
    (:Alert {case_id, status, …})-[:ALERTS_ON]->(:Wallet)            and [:JOINED {tx_id}] for what joined it later
    (:UnplacedScore {tx_id})                                         a score whose SENT is not here
    (:Checkpoint {projection, topic, partition, next_offset})

Idempotent by the checkpoint, which moves by compare-and-set in the transaction of the batch. A batch that meets a
deadlock is written again as a whole. A flow's sum is sum_high * 10^18 + sum_whole + sum_parts * 10^-18, exact: one
integer holds neither a 38-digit amount nor its parts. A store that does not answer stops the worker. Rebuild: an
empty database and the log from its first offset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import neo4j
import numpy as np
import polars as pl
import pyarrow as pa
from neo4j.exceptions import ConstraintError, DriverError, Neo4jError

from domain.log import Position, TopicPartition
from projections import wallet_graph_rows as rows_of
from projections import wallet_graph_statements as cypher
from projections import wallet_graph_voids as voids
from projections.errors import StalePosition, StoreDisagrees, StoreUnavailable
from projections.failpoints import APPLIED, reach
from projections.protocol import EventBatch, Excluded, Rejection
from projections.wallet_graph_screen import screen_batch
from projections.wallet_graph_statements import Statement
from projections.wallet_graph_verify import expect, read_table
from schema_registry.contracts import CASE_EVENTS, WALLET_EVENTS

PROJECTION: Final = "wallet-graph"
CHUNK_ROWS: Final = 10_000  # rows a statement; 5,000 to 10,000 wrote fastest, more only grows the server's transaction
INDEX_TIMEOUT_S: Final = 300
TRANSACTION_TIMEOUT_S: Final = 60.0
"""Longer than any batch takes. A worker that stands still in its transaction holds the checkpoint; the server ends it then, so that the
partitions' next owner can go on."""


class WalletGraphProjection:
    """The sink; see the module for what it owns. Give the driver a `max_transaction_retry_time`: deadlocks are
    retried within it.

    Args:
        driver: connected or not; this class does not close it.
        database: its name in the server.
    """

    name: str = PROJECTION
    topics: tuple[str, ...] = rows_of.TOPICS
    reads: Mapping[str, tuple[str, ...]] = rows_of.READS
    read_first: tuple[str, ...] = (WALLET_EVENTS,)
    """What `expected` must be given first: voids."""
    key_ordered: frozenset[str] = frozenset({WALLET_EVENTS, CASE_EVENTS})
    """Of a wallet's descriptions, labels and freezes, and of a case's states, the last one wins."""

    def __init__(self, driver: neo4j.Driver, database: str, name: str = PROJECTION) -> None:
        self._driver = driver
        self._database = database
        self.name = name
        self.retries = 0
        """Transactions written again after a deadlock or another passing error of the server."""

    def prepare(self) -> None:
        """Create constraints and indexes and wait until they are online; the second call changes nothing.

        Raises:
            StoreUnavailable: the server does not answer.
        """
        with _translated(), self._session() as session:
            for statement in cypher.CONSTRAINTS:
                session.run(statement).consume()
            session.run("CALL db.awaitIndexes($seconds)", seconds=INDEX_TIMEOUT_S).consume()

    def load_position(self) -> dict[TopicPartition, int]:
        """The stored checkpoint, empty for a new store.

        Raises:
            StoreUnavailable: the server does not answer.
        """
        with _translated(), self._session() as session:
            found = session.execute_read(lambda tx: tx.run(cypher.LOAD_CHECKPOINTS, projection=self.name).data())
        return {(row["topic"], row["partition"]): row["next_offset"] for row in found}  # fmt: skip

    def screen(self, batch: EventBatch) -> Sequence[Rejection]:
        """Rows that this store cannot hold: `unsafe_identifier`, `negative_amount`, `invalid_vector`,
        `invalid_score`."""
        return screen_batch(batch)

    def apply(self, batch: EventBatch, before: Position, after: Position) -> None:
        """Write the batch and move the checkpoint of the partitions in `after`, in one transaction.

        Raises:
            StalePosition: another worker has written.
            StoreUnavailable: the server does not answer, or deadlocks went on for longer than the driver retries.
            StoreDisagrees: the graph holds one of the batch's transactions already: log and checkpoint do not fit.
        """
        writes = _writes(batch, may_repeat=False)
        attempts = 0

        @neo4j.unit_of_work(timeout=TRANSACTION_TIMEOUT_S)
        def write(tx: neo4j.ManagedTransaction) -> None:
            nonlocal attempts
            attempts += 1
            self._move_checkpoint(tx, before, after)
            for step in writes:
                step(tx)
            reach(APPLIED)

        try:
            with _translated(), self._session() as session:
                try:
                    session.execute_write(write)
                except ConstraintError:
                    # A tx_id that is here already: perhaps a revision that came before the void of what it replaces.
                    writes = _writes(batch, may_repeat=True)
                    session.execute_write(write)
        finally:
            self.retries += max(0, attempts - 1)

    def expected(self, batches: Iterator[EventBatch], excluded: Excluded) -> Iterator[tuple[str, pa.Table]]:
        """The rows that the log implies: tables wallet, sent, voided, void, score, flow, alert and joined."""
        return expect(batches, excluded)

    def read_back(self) -> Iterator[tuple[str, pa.Table]]:
        """The rows that the graph holds, in the same tables, streamed in pages.

        Raises:
            StoreUnavailable: the server does not answer.
        """
        for table, statements in cypher.READ_BACK.items():
            for statement in statements:
                with _translated(), self._session() as session:
                    yield from ((table, page) for page in read_table(table, session.run(statement)))

    def _move_checkpoint(self, tx: neo4j.ManagedTransaction, before: Position, after: Position) -> None:
        rows = [[topic, p, before.get((topic, p), 0), after[topic, p]] for topic, p in sorted(after)]
        tx.run(cypher.LOCK_CHECKPOINTS.cypher, rows=[row[:2] for row in rows], projection=self.name).consume()
        moved = tx.run(cypher.MOVE_CHECKPOINTS.cypher, rows=rows, projection=self.name).single(strict=True)["moved"]
        if moved != len(rows):
            stored = {(row["topic"], row["partition"]): row["next_offset"] for row in tx.run(
                cypher.LOAD_CHECKPOINTS, projection=self.name
            )}  # fmt: skip
            raise StalePosition(
                f"{self.name}: expected the checkpoint {_shown(before, after)}, found {_shown(stored, after)}"
                " or an offset between: another worker has written"
            )

    def _session(self) -> neo4j.Session:
        # Warnings off: an empty graph knows no property yet, and each name would be one.
        return self._driver.session(
            database=self._database,
            fetch_size=CHUNK_ROWS,
            notifications_min_severity=neo4j.NotificationMinimumSeverity.OFF,
        )


_Step = Callable[[neo4j.ManagedTransaction], None]
_Rows = list[list[Any]]


def _writes(batch: EventBatch, may_repeat: bool) -> list[_Step]:
    """What the batch writes, ready before the transaction begins so that its locks are held no longer than the server
    needs. A pure function of the batch.

    Args:
        may_repeat: whether a transaction's tx_id may be in the graph already, as a revision's is.
    """
    steps: list[_Step] = []

    def add(statement: Statement, found: pl.DataFrame | None) -> None:
        if found is not None and found.height:
            rows = _rows(found, statement.columns)
            steps.append(lambda tx: _run(tx, statement, rows))

    transactions = rows_of.frame(batch, "TransactionRecorded")
    named = rows_of.wallets(batch)
    if transactions is not None:
        named = named.join(rows_of.wallets_of(transactions), on="wallet_id", how="anti")
    add(cypher.MERGE_WALLETS, _named(named))
    taken_back = rows_of.voids(batch)
    if taken_back is not None:
        steps.append(lambda tx: voids.take_back(tx, taken_back, CHUNK_ROWS))
    if transactions is not None:
        steps.append(_write_marked(transactions) if may_repeat else _write_all(transactions))
        ids = rows_of.sides(transactions).select("tx_id", "_seq").rows()
        steps.append(lambda tx: _place_scores(tx, list(map(list, ids))))
    scored = rows_of.frame(batch, "TransactionScored")
    if scored is not None:
        score_rows = _rows(rows_of.scores(scored), cypher.SCORE_SENT.columns)
        steps.append(lambda tx: _score(tx, score_rows))
        add(cypher.SCORE_WALLETS, rows_of.wallet_scores(scored))
    described = rows_of.frame(batch, "WalletDescribed")
    add(cypher.DESCRIBE_WALLETS, None if described is None else rows_of.descriptions(described))
    labelled = rows_of.frame(batch, "WalletLabelled")
    add(cypher.LABEL_WALLETS, None if labelled is None else rows_of.labels(labelled))
    add(cypher.FREEZE_WALLETS, rows_of.freezes(batch))
    embedded = rows_of.frame(batch, "WalletEmbedded")
    if embedded is not None:
        vectors = rows_of.embeddings(embedded).select(cypher.EMBED_WALLETS.columns).rows()
        embedding_rows = [[w, np.frombuffer(v, "<f4").tolist(), *rest] for w, v, *rest in vectors]
        steps.append(lambda tx: _run(tx, cypher.EMBED_WALLETS, embedding_rows))
    raised = rows_of.frame(batch, "AlertRaised")
    add(cypher.RAISE_ALERTS, None if raised is None else rows_of.alerts(raised))
    extended = rows_of.frame(batch, "AlertExtended")
    add(cypher.JOIN_ALERTS, None if extended is None else rows_of.joined(extended))
    add(cypher.MOVE_CASES, rows_of.cases(batch))
    return steps


def _write_all(transactions: pl.DataFrame) -> _Step:
    """Every transaction as SENT, unless something was taken back."""
    chunks = [_write_transactions(transactions.slice(start, CHUNK_ROWS)) for start in range(0, transactions.height, CHUNK_ROWS)]
    marked = _write_marked(transactions)

    def write(tx: neo4j.ManagedTransaction) -> None:
        for step in (marked,) if voids.holds_voids(tx) else chunks:
            step(tx)

    return write


def _write_marked(transactions: pl.DataFrame) -> _Step:
    def create(tx: neo4j.ManagedTransaction, standing: pl.DataFrame) -> None:
        for start in range(0, standing.height, CHUNK_ROWS):
            _write_transactions(standing.slice(start, CHUNK_ROWS))(tx)

    def write(tx: neo4j.ManagedTransaction) -> None:
        _run(tx, cypher.MERGE_WALLETS, _rows(_named(rows_of.wallets_of(transactions)), cypher.MERGE_WALLETS.columns))
        voids.write_marked(tx, transactions, create, CHUNK_ROWS)

    return write


def _write_transactions(transactions: pl.DataFrame) -> _Step:
    """Wallets, SENT and FLOW of a chunk in one statement; its rows name wallets by their place in `$wallets`."""
    statement = cypher.WRITE_TRANSACTIONS
    wallets = _named(rows_of.wallets_of(transactions)).with_row_index("place")
    places = wallets.select("wallet_id", pl.col("place").cast(pl.Int64))

    def placed(found: pl.DataFrame) -> pl.DataFrame:
        for side in ("source", "target"):
            renamed = places.select(pl.col("wallet_id").alias(side), pl.col("place").alias(f"{side}_place"))
            found = found.join(renamed, on=side, how="left", maintain_order="left")
        return found.drop("source", "target").rename({"source_place": "source", "target_place": "target"})

    parameters = {
        "wallets": _rows(wallets, statement.wallets),
        "sent": _rows(placed(rows_of.sent(transactions)), statement.sent),
        "flows": _rows(placed(_flow_rows(rows_of.flows(transactions))), statement.flows),
    }
    return lambda tx: _consume(tx.run(statement.cypher, parameters))


def _named(wallets: pl.DataFrame) -> pl.DataFrame:
    """Wallets with the network and the caption of a placeholder, sorted: writers that lock in one order meet fewer deadlocks."""
    ids = pl.col("wallet_id")
    return wallets.sort(ids).with_columns(rows_of.network(ids).alias("network"), rows_of.captions(ids).alias("caption"))


def _flow_rows(flow: pl.DataFrame) -> pl.DataFrame:
    sums = [rows_of.three_integers(total) for total in rows_of.exact_sums(flow)]
    parts = pl.DataFrame(sums, schema={"high": pl.Int64, "whole": pl.Int64, "parts": pl.Int64}, orient="row")
    return pl.concat([flow.drop(rows_of.LIMBS), parts], how="horizontal")


def _rows(found: pl.DataFrame, columns: Sequence[str]) -> _Rows:
    """The rows as lists, which is what the driver packs."""
    return list(map(list, found.select(columns).rows()))


def _consume(result: neo4j.Result) -> None:
    result.consume()


def _run(tx: neo4j.ManagedTransaction, statement: Statement, rows: _Rows) -> None:
    for start in range(0, len(rows), CHUNK_ROWS):
        tx.run(statement.cypher, rows=rows[start : start + CHUNK_ROWS]).consume()


def _place_scores(tx: neo4j.ManagedTransaction, rows: _Rows) -> None:
    # The count is kept by the store and costs nothing: a rebuild, which reads transactions first, never looks further.
    if tx.run(cypher.COUNT_UNPLACED).single(strict=True)["unplaced"]:
        _run(tx, cypher.PLACE_SCORES, rows)
        _run(tx, cypher.PLACE_VOIDED_SCORES, rows)


def _score(tx: neo4j.ManagedTransaction, rows: _Rows) -> None:
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        for statement in (cypher.SCORE_SENT, cypher.SCORE_VOIDED):
            placed = {(tx_id, seq) for tx_id, seq in tx.run(statement.cypher, rows=chunk).values()}
            chunk = [row for row in chunk if (row[0], row[1]) not in placed]
            if not chunk:
                break
        else:
            _run(tx, cypher.KEEP_SCORES, chunk)


def _shown(position: Position, only: Position) -> str:
    found = (f"{topic}[{p}]={position.get((topic, p), 0)}" for topic, p in sorted(only))
    return ", ".join(found) or "(empty)"


@contextmanager
def _translated() -> Iterator[None]:
    """The driver's errors as ours, with their cause."""
    try:
        yield
    except ConstraintError as error:
        raise StoreDisagrees(
            f"the wallet graph holds a key of this batch already, though its checkpoint stands before it:"
            f" {error.message}. Verify the log, then rebuild the graph"
        ) from error
    except (DriverError, Neo4jError) as error:
        raise StoreUnavailable(f"Neo4j: {type(error).__name__}: {str(error)[:300]}") from error
