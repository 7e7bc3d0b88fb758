"""A whole history of the wallet graph as files for Neo4j's offline import, which writes a store some ten times as fast as transactions do.

`GraphHistory` takes decoded events as the sink does, through the same runner and the same quarantine, and keeps them on disk.
`write_sheets` turns what was kept into the rows that `WalletGraphProjection` would have left, by way of the rows that verification expects:
what an event becomes in the graph is said once, in `wallet_graph_rows`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from domain.log import Position, TopicPartition
from projections import wallet_graph_rows as rows_of
from projections.errors import StalePosition, StoreDisagrees, StoreUnavailable
from projections.protocol import EventBatch, Excluded, Rejection
from projections.wallet_graph import PROJECTION, WalletGraphProjection
from projections.wallet_graph_screen import screen_batch
from projections.wallet_graph_sheets import (
    ALERTS,
    ALERTS_ON,
    CHECKPOINTS,
    FLOWS,
    JOINED,
    SENT,
    UNPLACED,
    VOIDED,
    VOIDS,
    WALLETS,
    Sheet,
    SheetWriter,
)  # fmt: skip
from projections.wallet_graph_statements import UNIT
from projections.wallet_graph_verify import SCHEMAS, expect

PART_ROWS: Final = 500_000  # transactions joined with their scores at a time: some 300 MB; more parts cost only more files
_SCORED: Final = ["tx_id", "seq"]  # a score belongs to one revision
_PIECE_ROWS: Final = 100_000  # rows turned into text at a time

Told = Callable[[int, int], None]
"""Told how many rows of how many are written."""


class GraphHistory:
    """Where a rebuild puts the events of the wallet graph before they are imported: a folder of this run, lost with it.

    Args:
        folder: made anew; what stands there is removed.
    """

    name: str = PROJECTION
    topics: tuple[str, ...] = WalletGraphProjection.topics
    reads: Mapping[str, tuple[str, ...]] = WalletGraphProjection.reads
    key_ordered: frozenset[str] = WalletGraphProjection.key_ordered

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self._position: dict[TopicPartition, int] = {}
        self._kept: list[dict[str, Path]] = []
        self.transactions = 0

    def load_position(self) -> Position:
        """How far the history goes."""
        return dict(self._position)

    def screen(self, batch: EventBatch) -> Sequence[Rejection]:
        """As `WalletGraphProjection.screen`."""
        return screen_batch(batch)

    def apply(self, batch: EventBatch, before: Position, after: Position) -> None:
        """Keep the events.

        Raises:
            StalePosition: they do not follow those before.
            StoreUnavailable: they cannot be written; the disk may be full.
        """
        if any(self._position.get(tp, 0) != before.get(tp, 0) for tp in after):
            raise StalePosition(f"{self.name}: expected the history to end at {before}, it ends at {self._position}")
        files = {}
        for event, table in batch.tables.items():
            if table.num_rows:
                files[event] = self.folder / f"{len(self._kept):06}-{event}.arrow"
                try:
                    keep(files[event], table)
                except OSError as error:
                    raise StoreUnavailable(f"the graph's history cannot be kept in {self.folder}: {error}") from error
        self._kept.append(files)
        recorded = batch.tables.get("TransactionRecorded")
        self.transactions += recorded.num_rows if recorded is not None else 0
        self._position.update(after)

    def batches(self) -> Iterator[EventBatch]:
        """The events, in the order in which they came; voids first, for `expect` must know them."""
        voids = "TransactionVoided"
        for files in self._kept:
            if voids in files:
                yield EventBatch({voids: kept(files[voids])})
        for files in self._kept:
            yield EventBatch({event: kept(file) for event, file in files.items() if event != voids})


def keep(file: Path, table: pa.Table) -> None:
    """Write a table where `kept` finds it.

    Raises:
        OSError: it cannot be written.
    """
    options = pa.ipc.IpcWriteOptions(compression="lz4", unify_dictionaries=True)
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_file(out, table.schema, options=options) as writer:
        writer.write_table(table)


def kept(file: Path) -> pa.Table:
    """A table that `keep` wrote."""
    with pa.OSFile(str(file)) as source:
        return pa.ipc.open_file(source).read_all()


def write_sheets(history: GraphHistory, folder: Path, told: Told = lambda done, total: None, part_rows: int = PART_ROWS) -> list[Sheet]:
    """Write the files of an import that leaves what the sink would have left of the same events, its checkpoint included.

    Args:
        folder: must be there; files are added.
        part_rows: transactions that are held in memory at a time.

    Returns:
        The sheets that have rows, nodes first; none for a history without records.

    Raises:
        StoreDisagrees: the log holds one transaction twice.
        OSError: they cannot be written; the disk may be full.
    """
    with SheetWriter(folder) as out:
        transactions = _Parts(folder, -(-history.transactions // part_rows))
        alerts: list[pl.DataFrame] = []
        joined: list[pl.DataFrame] = []
        total = 2 * history.transactions
        done = 0
        for table, arrow in expect(history.batches(), Excluded()):
            found = _frame(arrow)
            if table in ("sent", "voided", "score"):
                transactions.add(table, found)
                done += found.height if table == "sent" else 0
                told(done, total)
            elif table == "void":
                out.write(VOIDS, found)
            elif table == "flow":
                for piece in found.iter_slices(_PIECE_ROWS):
                    out.write(FLOWS, _flows(piece))
            elif table == "wallet":
                vectors = _vectors(history)
                for piece in found.iter_slices(_PIECE_ROWS):
                    out.write(WALLETS, _wallets(piece, vectors))
            elif table == "alert":
                alerts.append(found)
            else:
                joined.append(found)
        for sent, voided, scores in transactions:
            twice = sent.filter(pl.col("tx_id").is_duplicated())
            if twice.height:
                raise StoreDisagrees(f"the log holds the transaction {twice['tx_id'][0]!r} twice. Verify the log")
            for plan, rows in ((SENT, sent), (VOIDED, voided)):
                for piece in rows.join(scores, on=_SCORED, how="left", maintain_order="left").iter_slices(_PIECE_ROWS):
                    out.write(plan, piece)
            out.write(UNPLACED, scores.join(pl.concat([sent.select(_SCORED), voided.select(_SCORED)]), on=_SCORED, how="anti"))
            done += sent.height
            told(done, total)
        _write_alerts(out, alerts, joined)
        out.write(CHECKPOINTS, _checkpoints(history))
    return out.sheets


class _Parts:
    """Transactions and scores on disk, split by tx_id, so that each part is joined in memory."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, max(1, count)
        self._files: dict[tuple[str, int], list[Path]] = {}
        self._next = 0

    def add(self, table: str, found: pl.DataFrame) -> None:
        hashed = found.with_columns((pl.col("tx_id").hash(0) % self._count).alias("@part"))
        for (part,), piece in hashed.partition_by("@part", as_dict=True, include_key=False).items():
            file = self._folder / f"part-{table}-{self._next:06}.arrow"
            keep(file, piece.to_arrow())
            self._next += 1
            self._files.setdefault((table, part), []).append(file)

    def __iter__(self) -> Iterator[tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]]:
        for part in range(self._count):
            scores = self._take("score", part).rename({name: f"score{name}" for name in ("_topic", "_partition", "_offset")})
            scores = scores.rename({"tx_seq": "score_seq"}).with_columns(seq=pl.col("score_seq"))
            yield self._take("sent", part), self._take("voided", part), scores

    def _take(self, table: str, part: int) -> pl.DataFrame:
        files = self._files.get((table, part), [])
        if not files:
            return _frame(SCHEMAS[table].empty_table())
        found = pl.concat([_frame(kept(file)) for file in files])
        for file in files:
            file.unlink()
        return found


def _wallets(found: pl.DataFrame, vectors: pl.DataFrame | None) -> pl.DataFrame:
    marks = pl.concat_str(pl.lit("Wallet"), pl.col("marks").replace("", None).str.replace_all(",", ";", literal=True),
                          separator=";", ignore_nulls=True)  # fmt: skip
    found = found.with_columns(marks.alias("labels"))
    if vectors is None:
        return found.with_columns(pl.lit(None, pl.Binary).alias("vector"))
    return found.join(vectors, on="wallet_id", how="left", maintain_order="left")


def _vectors(history: GraphHistory) -> pl.DataFrame | None:
    pieces: list[pl.DataFrame] = []
    for batch in history.batches():
        embedded = rows_of.frame(batch, "WalletEmbedded")
        if embedded is not None:
            pieces.append(rows_of.embeddings(embedded))
            pieces = [rows_of.fold_embeddings(pl.concat(pieces))]
    return pieces[0].select("wallet_id", "vector") if pieces else None


def _flows(found: pl.DataFrame) -> pl.DataFrame:
    sums = [rows_of.three_integers(int(parts)) for parts in found["amount_parts"].to_list()]
    integers = pl.DataFrame(sums, schema={"high": pl.Int64, "whole": pl.Int64, "parts": pl.Int64}, orient="row")
    # In numpy: polars divides by a constant as it multiplies by its inverse, which is another double now and then.
    high, whole, parts = (integers[name].to_numpy().astype(np.float64) for name in ("high", "whole", "parts"))
    return pl.concat([found, integers], how="horizontal").with_columns(amount_float=high * float(UNIT) + whole + parts / float(UNIT))


def _write_alerts(out: SheetWriter, alerts: list[pl.DataFrame], joined: list[pl.DataFrame]) -> None:
    for found in alerts:
        out.write(ALERTS, found)
        out.write(ALERTS_ON, found.filter(pl.col("wallet_id").is_not_null()))
    for found in joined:
        out.write(JOINED, found)
    if joined:
        # What joins a case that nothing raised stands at an empty alert, as the sink leaves it.
        cases = pl.concat([found.select("case_id") for found in joined]).unique()
        if alerts:
            cases = cases.join(pl.concat([found.select("case_id") for found in alerts]), on="case_id", how="anti")
        out.write(ALERTS, cases)


def _checkpoints(history: GraphHistory) -> pl.DataFrame:
    rows = [(history.name, topic, partition, offset) for (topic, partition), offset in sorted(history.load_position().items())]
    schema = {"projection": pl.String, "topic": pl.String, "partition": pl.Int64, "next_offset": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _frame(arrow: pa.Table) -> pl.DataFrame:
    found = pl.from_arrow(arrow)
    assert isinstance(found, pl.DataFrame)
    return found
