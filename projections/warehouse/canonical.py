"""The warehouse's rows in the form in which they are compared: those the log implies, and those the store holds.

Facts carry `_topic`, `_partition` and `_offset`; dimensions are named by their keys. Bytes are compared as hexadecimal
text and card features as the hexadecimal of their doubles, so no digit is lost on the way through text.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager.dbapi import Cursor

from projections.protocol import EventBatch
from projections.warehouse.dimensions import asset_pairs, distinct, wallet_columns
from projections.warehouse.facts import fact_rows
from projections.warehouse.tables import CHECKPOINTS, warehouse_metadata
from schema_registry.column_codec import DECIMAL

_LOG_NAMES = {"log_topic": "_topic", "log_partition": "_partition", "log_offset": "_offset"}
_FOLD_ROWS = 2_000_000  # keys gathered before they are made distinct, about 120 MB of wallet ids
_UNKNOWN = "unknown"
AMOUNTS = frozenset({"amount", "counter_amount", "fee", "price"})


def stored_rows(cursor: Cursor) -> Iterator[tuple[str, pa.Table]]:
    """Every table but the checkpoints, as the cursor's transaction sees it, in the driver's pieces of some 16 MB."""
    for name, columns in columns_by_table().items():
        # Amounts leave the server as exact text: three times as fast as the driver's own reading of NUMERIC.
        chosen = ", ".join(f'"{column}"::text' if column in AMOUNTS else f'"{column}"' for column in columns)
        cursor.execute(f"SELECT {chosen} FROM {name}")
        with cursor.fetch_record_batch() as reader:
            for piece in reader:
                yield name, canonical_rows(name, pa.Table.from_batches([piece]))


def expected_rows(batches: Iterator[EventBatch]) -> Iterator[tuple[str, pa.Table]]:
    """The rows that these events imply. Memory grows with the wallets and descriptions, not with the transactions."""
    fold = _Fold()
    for batch in batches:
        for fact, rows in fact_rows(batch):
            fold.add(fact.table, rows)
            topic = pa.repeat(pa.scalar(fact.topic), rows.num_rows)
            yield fact.table, canonical_rows(fact.table, rows.append_column("log_topic", topic))
    yield from fold.dimensions()


def canonical_rows(name: str, rows: pa.Table) -> pa.Table:
    """A table's rows as they are compared: columns in the order of the layout, every type one that both sides share."""
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    for column in columns_by_table()[name]:
        values = rows[column] if column in rows.column_names else pa.nulls(rows.num_rows, pa.string())
        columns[_LOG_NAMES.get(column, column)] = _plain(column, values)
    return pa.table(columns)


def _plain(column: str, values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    kind = values.type
    if column in AMOUNTS:
        return values.cast(DECIMAL)
    if pa.types.is_list(kind):
        return _hex(pa.chunked_array([_bytes_of(chunk) for chunk in values.chunks], pa.binary()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _hex(values)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return values.cast(pa.string())
    if pa.types.is_integer(kind):
        return values.cast(pa.int64())
    return values


def _bytes_of(lists: pa.ListArray) -> pa.Array:
    """Each list of doubles as the bytes behind it, without touching a number."""
    if lists.null_count == len(lists):
        return pa.nulls(len(lists), pa.binary())
    doubles = pc.fill_null(lists.values, float("nan"))
    offsets = pc.multiply(lists.offsets, 8).cast(pa.int32())
    mask = None if lists.null_count == 0 else lists.is_valid()
    validity = None if mask is None else mask.buffers()[1]
    values = pa.concat_arrays([doubles])  # with an offset of zero
    return pa.Array.from_buffers(pa.binary(), len(lists), [validity, offsets.buffers()[1], values.buffers()[1]])


def _hex(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    series = pl.Series(values.cast(pa.large_binary()))
    return series.bin.encode("hex").to_arrow().cast(pa.string())


@cache
def columns_by_table() -> dict[str, tuple[str, ...]]:
    """Every table that is compared, with its columns in the order of the layout."""
    tables = warehouse_metadata().tables
    return {name: tuple(table.columns.keys()) for name, table in tables.items() if name != CHECKPOINTS}


class _Fold:
    """The dimensions, folded from the facts' rows independently of the SQL that the sink uses."""

    def __init__(self) -> None:
        self._wallets = pl.Series("wallet_id", [], pl.String)
        self._pending: list[pl.Series] = []
        self._pending_rows = 0
        self._assets: set[tuple[str, str]] = set()
        self._hours: set[int] = set()
        self._models: set[str] = set()
        self._descriptions: list[pl.DataFrame] = []
        self._trainings: list[pl.DataFrame] = []

    def add(self, table: str, rows: pa.Table) -> None:
        for name in wallet_columns(rows):
            self._meet(pl.Series("wallet_id", rows[name]).cast(pl.String).drop_nulls().unique())
        if "model_version" in rows.column_names:
            self._models.update(distinct(rows["model_version"]))
        if table == "fact_transaction":
            self._assets |= asset_pairs(rows)
            self._hours.update(distinct(rows["occurred_hour"].cast(pa.int64())))
        elif table == "fact_wallet_description":
            self._descriptions.append(_frame(rows))
        elif table == "fact_model_training":
            self._trainings.append(_frame(rows))

    def _meet(self, wallets: pl.Series) -> None:
        self._pending.append(wallets)
        self._pending_rows += len(wallets)
        if self._pending_rows > _FOLD_ROWS:
            self._settle()

    def _settle(self) -> None:
        self._wallets = pl.concat([self._wallets, *self._pending]).unique()
        self._pending, self._pending_rows = [], 0

    def dimensions(self) -> Iterator[tuple[str, pa.Table]]:
        self._settle()
        yield "dim_wallet", _arrow("dim_wallet", self._wallet_rows())
        if self._assets:
            pairs = sorted(self._assets)
            frame = pl.DataFrame(pairs, schema={"network": pl.String, "asset": pl.String}, orient="row")
            yield "dim_asset", _arrow("dim_asset", frame)
        if self._hours:
            yield "dim_time", _arrow("dim_time", self._hour_rows())
        if self._models:
            yield "dim_model", _arrow("dim_model", self._model_rows())

    def _wallet_rows(self) -> pl.DataFrame:
        network = pl.col("wallet_id").str.split(":").list.first()
        placeholders = pl.DataFrame({"wallet_id": self._wallets}).with_columns(
            network=network, description_number=pl.lit(0), kind=pl.lit(_UNKNOWN)
        )
        if not self._descriptions:
            time = pl.lit(None, pl.Datetime("us", "UTC"))
            return placeholders.with_columns(
                *(pl.lit(None, pl.String).alias(name) for name in ("name", "country", "source")),
                valid_from=time, valid_to=time, is_current=pl.lit(True),
            )  # fmt: skip
        history = pl.concat(self._descriptions).sort("wallet_id", "known_at", "log_partition", "log_offset")
        history = history.with_columns(
            network=network,
            description_number=pl.int_range(1, pl.len() + 1).over("wallet_id"),
            valid_from=pl.col("known_at"),
            valid_to=pl.col("known_at").shift(-1).over("wallet_id"),
        ).with_columns(is_current=pl.col("valid_to").is_null())
        first = history.group_by("wallet_id").agg(valid_to=pl.col("known_at").min())
        placeholders = placeholders.join(first, on="wallet_id", how="left").with_columns(is_current=pl.col("valid_to").is_null())
        return pl.concat([placeholders, history], how="diagonal_relaxed")

    def _hour_rows(self) -> pl.DataFrame:
        start = pl.Series("hour_start", sorted(self._hours), pl.Int64).cast(pl.Datetime("us", "UTC"))
        at = pl.col("hour_start").dt
        return pl.DataFrame([start]).with_columns(
            year=at.year(), quarter=at.quarter(), month=at.month(), day=at.day(), hour=at.hour(),
            iso_year=at.iso_year(), iso_week=at.week(), iso_weekday=at.weekday(), is_weekend=at.weekday() >= 6,
        )  # fmt: skip

    def _model_rows(self) -> pl.DataFrame:
        models = pl.DataFrame({"model_version": sorted(self._models)})
        if not self._trainings:
            texts = (pl.lit(None, pl.String).alias(name) for name in ("package_sha256", "package_uri", "metrics"))
            numbers = (pl.lit(None, pl.Int64).alias(name) for name in ("trained_to_seq", "labels"))
            at = pl.lit(None, pl.Datetime("us", "UTC")).alias("trained_at")
            return models.with_columns(pl.lit(False).alias("is_described"), *texts, *numbers, at)
        latest = (
            pl.concat(self._trainings)
            .sort("known_at", "log_partition", "log_offset")
            .unique("model_version", keep="last", maintain_order=True)
            .with_columns(is_described=pl.lit(True), trained_at=pl.col("known_at"))
        )
        return models.join(latest, on="model_version", how="left").with_columns(pl.col("is_described").fill_null(False))


def _frame(rows: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _arrow(name: str, frame: pl.DataFrame) -> pa.Table:
    return canonical_rows(name, frame.select(columns_by_table()[name]).to_arrow())
