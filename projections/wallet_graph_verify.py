"""What proves the wallet graph equal to the log: the rows that the log implies, and the store's own as the same
tables."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import neo4j
import numpy as np
import polars as pl
import pyarrow as pa

from projections import wallet_graph_rows as rows_of
from projections.protocol import EventBatch, Excluded
from projections.wallet_graph_statements import HIGH_SCORE, UNIT

PAGE_ROWS: Final = 50_000
_FOLD_ROWS: Final = 1_000_000  # rows collected before they are folded: bounds memory, changes nothing else
_TIME: Final = pa.timestamp("us", tz="UTC")
_COORDINATES: Final = (("_topic", pa.string()), ("_partition", pa.int64()), ("_offset", pa.int64()))

_SENT_FIELDS: Final = (
    ("tx_id", pa.string()),
    ("seq", pa.int64()),
    ("source_wallet_id", pa.string()),
    ("target_wallet_id", pa.string()),
    ("amount", pa.string()),
    ("amount_float", pa.float64()),
    *((name, pa.string()) for name in ("asset", "status", "kind")),
    ("occurred_at", _TIME),
    *_COORDINATES,
)

SCHEMAS: Final[Mapping[str, pa.Schema]] = {
    "wallet": pa.schema(
        [
            *((name, pa.string()) for name in ("wallet_id", "network", "caption")),
            ("degree", pa.int64()),
            *((name, pa.string()) for name in ("kind", "name", "country", "described_by", "label", "label_source")),
            ("is_frozen", pa.bool_()),
            ("freeze_reason", pa.string()),
            ("last_score", pa.float64()),
            ("last_score_seq", pa.int64()),
            ("embedding_seq", pa.int64()),
            ("embedding_model", pa.string()),
            ("embedding_hash", pa.string()),
            ("marks", pa.string()),
        ]
    ),
    "sent": pa.schema(_SENT_FIELDS),
    "voided": pa.schema(
        [
            *_SENT_FIELDS,
            ("void_seq", pa.int64()),
            ("void_reason", pa.string()),
            ("voided_at", _TIME),
        ]
    ),
    "void": pa.schema(
        [
            ("tx_id", pa.string()),
            ("seq", pa.int64()),
            ("reason", pa.string()),
            ("replaced_by", pa.string()),
            ("known_at", _TIME),
            *_COORDINATES,
        ]
    ),
    "score": pa.schema(
        [
            ("tx_id", pa.string()),
            ("tx_seq", pa.int64()),
            *((name, pa.float64()) for name in ("score", "source_score", "target_score")),
            ("model_version", pa.string()),
            *_COORDINATES,
        ]
    ),
    "flow": pa.schema(
        [
            *((name, pa.string()) for name in ("source_wallet_id", "target_wallet_id", "asset")),
            ("transactions", pa.int64()),
            ("amount_parts", pa.string()),
            ("first_at", _TIME),
            ("last_at", _TIME),
        ]
    ),
    "alert": pa.schema(
        [
            *((name, pa.string()) for name in ("case_id", "wallet_id", "reason")),
            ("score", pa.float64()),
            ("threshold", pa.float64()),
            ("tx_id", pa.string()),
            ("tx_seq", pa.int64()),
            ("explanation", pa.string()),
            ("model_version", pa.string()),
            ("known_at", _TIME),
            *((name, pa.string()) for name in ("status", "assignee", "verdict", "verdict_reason")),
            *_COORDINATES,
        ]
    ),
    "joined": pa.schema(
        [
            ("case_id", pa.string()),
            ("wallet_id", pa.string()),
            ("tx_id", pa.string()),
            ("tx_seq", pa.int64()),
            ("score", pa.float64()),
            ("known_at", _TIME),
            *_COORDINATES,
        ]
    ),
}
"""Canonical rows. `amount_parts` is a flow's sum in 10^-18 as text; `marks` are a wallet's further labels, sorted."""

_COORDINATE_NAMES: Final = {"topic": "_topic", "partition": "_partition", "offset": "_offset"}
_SIDE_NAMES: Final = {"source": "source_wallet_id", "target": "target_wallet_id"}


def read_table(table: str, result: neo4j.Result) -> Iterator[pa.Table]:
    """The records of one reading statement as pages of canonical rows."""
    schema = SCHEMAS[table]
    keys = result.keys()
    records = iter(result)
    while page := [record.values() for record in islice(records, PAGE_ROWS)]:
        columns: dict[str, Sequence[Any]] = dict(zip(keys, zip(*page, strict=True), strict=True))
        if table == "wallet":
            columns["embedding_hash"] = [_hash_of_numbers(numbers) for numbers in columns.pop("embedding")]
            columns["marks"] = [",".join(sorted(marks)) for marks in columns["marks"]]
        if table == "flow":
            sums = zip(columns.pop("high"), columns.pop("whole"), columns.pop("parts"), strict=True)
            columns["amount_parts"] = [str((high * UNIT + whole) * UNIT + parts) for high, whole, parts in sums]
        yield pa.table([_array(columns[field.name], field.type) for field in schema], schema=schema)


def expect(batches: Iterator[EventBatch], excluded: Excluded) -> Iterator[tuple[str, pa.Table]]:
    """The rows that the log implies, in one pass and memory of wallets, flows and voids, not of transactions.

    A void must come in before its transaction, or with it: `WalletGraphProjection.read_first`.
    """
    voids = _Fold(lambda pieces: pieces)
    folds = {
        "wallets": _Fold(rows_of.fold_wallets),
        "flows": _Fold(rows_of.fold_flows),
        "described": _Fold(_last_of("wallet_id")),
        "labelled": _Fold(_last_of("wallet_id")),
        "frozen": _Fold(_last_of("wallet_id")),
        "wallet_scores": _Fold(rows_of.fold_wallet_scores),
        "embedded": _Fold(rows_of.fold_embeddings),
        "scores": _Fold(_last_of(rows_of.SCORE_KEY)),
        "alerts": _Fold(_last_of("case_id")),
        "cases": _Fold(rows_of.fold_cases),
    }
    for batch in batches:
        _count_folded(batch, excluded)
        folds["wallets"].add(rows_of.wallets(batch))
        transactions = rows_of.frame(batch, "TransactionRecorded")
        taken_back = rows_of.voids(batch)
        if taken_back is not None:
            voids.add(taken_back)
            yield "void", _canonical("void", taken_back)
        if transactions is not None:
            _count_sideless(transactions, excluded)
            transactions = rows_of.marked(transactions, voids.result())
            folds["wallets"].add(rows_of.wallets_of(transactions))
            live = rows_of.standing(transactions)
            yield "sent", _canonical("sent", rows_of.sent(live))
            if live.height < transactions.height:
                yield "voided", _canonical("voided", rows_of.voided(transactions))
            folds["flows"].add(rows_of.flows(live))
        scored = rows_of.frame(batch, "TransactionScored")
        if scored is not None:
            folds["scores"].add(rows_of.scores(scored))
            folds["wallet_scores"].add(rows_of.wallet_scores(scored))
            folds["scores"].seen += scored.height - rows_of.scores(scored).height
        _add(folds["described"], rows_of.frame(batch, "WalletDescribed"), rows_of.descriptions)
        _add(folds["labelled"], rows_of.frame(batch, "WalletLabelled"), rows_of.labels)
        folds["frozen"].add(rows_of.freezes(batch))
        _add(folds["embedded"], rows_of.frame(batch, "WalletEmbedded"), rows_of.embeddings)
        _add(folds["alerts"], rows_of.frame(batch, "AlertRaised"), rows_of.alerts)
        folds["cases"].add(rows_of.cases(batch))
        extended = rows_of.frame(batch, "AlertExtended")
        if extended is not None:
            yield "joined", _canonical("joined", rows_of.joined(extended))
    found = {name: fold.result() for name, fold in folds.items()}
    scores = found["scores"]
    if scores is not None:
        excluded.add("superseded_score", folds["scores"].seen - scores.height)
        yield "score", _canonical("score", scores)
    if found["flows"] is not None:
        sums = [str(total) for total in rows_of.exact_sums(found["flows"])]
        yield "flow", _canonical("flow", found["flows"].with_columns(pl.Series("amount_parts", sums, pl.String)))
    if found["wallets"] is not None:
        yield "wallet", _canonical("wallet", _wallet_rows(found))
    alerts = _alert_rows(found["alerts"], found["cases"])
    if alerts is not None:
        yield "alert", _canonical("alert", alerts)


class _Fold:
    """Frames that arrive in pieces and are folded now and then."""

    def __init__(self, fold: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        self._fold = fold
        self._pieces: list[pl.DataFrame] = []
        self._rows = 0
        self.seen = 0

    def add(self, piece: pl.DataFrame | None) -> None:
        if piece is None or not piece.height:
            return
        self._pieces.append(piece)
        self._rows += piece.height
        self.seen += piece.height
        if self._rows > _FOLD_ROWS:
            self._pieces = [self._fold(pl.concat(self._pieces))]
            self._rows = 0

    def result(self) -> pl.DataFrame | None:
        return self._fold(pl.concat(self._pieces)) if self._pieces else None


def _last_of(key: str | tuple[str, ...]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda pieces: rows_of.last(pieces, key)


def _add(fold: _Fold, events: pl.DataFrame | None, rows: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    if events is not None:
        fold.add(rows(events))


def _count_folded(batch: EventBatch, excluded: Excluded) -> None:
    """Records that change a row which others change too: they have no row of their own."""
    into = {
        "folded_into_wallet": (
            "WalletDescribed", "WalletLabelled", "WalletFrozen", "WalletReleased", "WalletEmbedded",
        ),
        "folded_into_alert": ("CaseOpened", "CaseAssigned", "VerdictReached", "CaseClosed"),
    }  # fmt: skip
    for reason, names in into.items():
        excluded.add(reason, sum(batch.tables[name].num_rows for name in names if name in batch.tables))


def _count_sideless(transactions: pl.DataFrame, excluded: Excluded) -> None:
    source, target = (transactions[f"{side}_wallet_id"].is_null() for side in ("source", "target"))
    excluded.add("no_wallets", int((source & target).sum()))
    excluded.add("no_source_wallet", int((source & ~target).sum()))
    excluded.add("no_target_wallet", int((~source & target).sum()))


def _wallet_rows(found: Mapping[str, pl.DataFrame | None]) -> pl.DataFrame:
    wallets = found["wallets"]
    assert wallets is not None
    ids = pl.col("wallet_id")
    rows = wallets.with_columns(rows_of.network(ids).alias("network"), rows_of.captions(ids).alias("short"))
    hashed = found["embedded"]
    if hashed is not None:
        digests = [_hash_of_bytes(vector) for vector in hashed["vector"].to_list()]
        hashed = hashed.with_columns(pl.Series("embedding_hash", digests, pl.String))
    alerts = found["alerts"]
    alerted = None if alerts is None else alerts.select("wallet_id", is_alerted=pl.lit(True)).unique("wallet_id")
    rows = _joined(rows, found["described"], {"source": "described_by"}, ("kind", "name", "country", "caption"))
    rows = _joined(rows, found["labelled"], {"source": "label_source"}, ("label",))
    rows = _joined(rows, found["frozen"], {"reason": "freeze_reason"}, ("is_frozen",))
    rows = _joined(rows, found["wallet_scores"], {"score": "last_score", "seq": "last_score_seq"}, ())
    names = {"seq": "embedding_seq", "model_version": "embedding_model"}
    rows = _joined(rows, hashed, names, ("embedding_hash",))
    rows = _joined(rows, alerted, {}, ("is_alerted",))
    marks = {
        "Alerted": pl.col("is_alerted").cast(pl.Boolean),
        "Exchange": pl.col("kind") == "exchange",
        "Frozen": pl.col("is_frozen").cast(pl.Boolean),
        "HighScore": pl.col("last_score").cast(pl.Float64) >= HIGH_SCORE,
        "Illicit": pl.col("label") == "illicit",
        "Licit": pl.col("label") == "licit",
    }
    named = [pl.when(is_so.fill_null(False)).then(pl.lit(name)) for name, is_so in marks.items()]
    return rows.with_columns(
        pl.coalesce("caption", "short").alias("caption"),
        pl.concat_str(named, separator=",", ignore_nulls=True).alias("marks"),
    )


def _joined(rows: pl.DataFrame, more: pl.DataFrame | None, renamed: Mapping[str, str], kept: tuple[str, ...]) -> pl.DataFrame:
    if more is None:
        return rows.with_columns(pl.lit(None, pl.String).alias(name) for name in (*renamed.values(), *kept))
    chosen = more.select("wallet_id", *(pl.col(old).alias(new) for old, new in renamed.items()), *kept)
    return rows.join(chosen, on="wallet_id", how="left")


def _alert_rows(alerts: pl.DataFrame | None, cases: pl.DataFrame | None) -> pl.DataFrame | None:
    if alerts is None and cases is None:
        return None
    fields = ("status", "assignee", "verdict", "verdict_reason")
    if cases is None:
        assert alerts is not None
        rows = alerts.with_columns(pl.lit(None, pl.String).alias(name) for name in fields)
    elif alerts is None:
        return cases
    else:
        rows = alerts.join(cases, on="case_id", how="full", coalesce=True)
    # A case that moved before its alert came is a placeholder; the alert makes it `alerted` only where nothing has
    # moved it.
    first = pl.when(pl.col("wallet_id").is_not_null()).then(pl.lit("alerted"))
    return rows.with_columns(pl.coalesce("status", first).alias("status"))


def _canonical(table: str, found: pl.DataFrame) -> pa.Table:
    names = {old: new for old, new in (_COORDINATE_NAMES | _SIDE_NAMES).items() if old in found.columns}
    arrow = found.rename(names).to_arrow()
    columns = []
    for field in SCHEMAS[table]:
        if field.name in arrow.schema.names:
            columns.append(arrow[field.name].cast(field.type))
        else:
            columns.append(pa.chunked_array([pa.nulls(arrow.num_rows, field.type)]))
    return pa.table(columns, schema=SCHEMAS[table])


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(kind)
    return pa.array(values, kind)


def _hash_of_numbers(numbers: Sequence[float] | None) -> str | None:
    return None if numbers is None else _hash_of_bytes(np.asarray(numbers, "<f4").tobytes())


def _hash_of_bytes(vector: bytes) -> str:
    return hashlib.sha256(vector).hexdigest()[:32]
