"""Which keys a batch brings to the dimensions, and the loading of them: staged, then inserted where they are new."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager.dbapi import Cursor

from projections.warehouse import statements as sql
from projections.warehouse.connection import run
from projections.warehouse.facts import Fact
from schema_registry.column_codec import TIME

KNOWN_KEYS_LIMIT = 1_000_000  # keys remembered a dimension, some 150 MB of wallet ids; past it memory starts afresh
_Key = TypeVar("_Key")
_ASSETS = ("asset", "counter_asset", "fee_asset")


@dataclass(slots=True)
class DimensionKeys:
    """Keys met in facts: wallets, (network, asset) pairs, hours in microseconds since 1970, model versions."""

    wallets: set[str] = field(default_factory=set)
    assets: set[tuple[str, str]] = field(default_factory=set)
    hours: set[int] = field(default_factory=set)
    models: set[str] = field(default_factory=set)

    def add(self, fact: Fact, rows: pa.Table) -> None:
        """Take the keys of one fact table's rows."""
        for name in wallet_columns(rows):
            self.wallets.update(distinct(rows[name]))
        if "model_version" in rows.column_names:
            self.models.update(distinct(rows["model_version"]))
        if fact.table == "fact_transaction":
            self.hours.update(distinct(rows["occurred_hour"].cast(pa.int64())))
            self.assets |= asset_pairs(rows)

    def without(self, known: DimensionKeys) -> DimensionKeys:
        """What is not in `known`."""
        return DimensionKeys(
            self.wallets - known.wallets,
            self.assets - known.assets,
            self.hours - known.hours,
            self.models - known.models,
        )

    def remember(self, keys: DimensionKeys) -> None:
        """Take over `keys`, which are durable; a set past `KNOWN_KEYS_LIMIT` starts afresh, as it only saves work."""
        _join(self.wallets, keys.wallets)
        _join(self.assets, keys.assets)
        _join(self.hours, keys.hours)
        _join(self.models, keys.models)


def wallet_columns(rows: pa.Table) -> list[str]:
    """The columns that hold wallet ids."""
    return [name for name in rows.column_names if name.endswith("wallet_id")]


def asset_pairs(rows: pa.Table) -> set[tuple[str, str]]:
    """The (network, asset) pairs of transactions, whatever the asset was used for."""
    found: set[tuple[str, str]] = set()
    for name in _ASSETS:
        pairs = rows.select(["network", name]).group_by(["network", name]).aggregate([])
        met = zip(pairs["network"].to_pylist(), pairs[name].to_pylist(), strict=True)
        found.update((network, asset) for network, asset in met if asset is not None)
    return found


def distinct(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column, each once, without null."""
    return [value for value in pc.unique(column).to_pylist() if value is not None]


def load_dimensions(cursor: Cursor, keys: DimensionKeys, described: Iterable[str], trained: Iterable[str]) -> None:
    """Insert the new keys and fold again what was described, inside the caller's transaction.

    Args:
        described: wallets with a description in this batch, whose facts are already inserted.
        trained: model versions whose training was recorded in this batch, likewise.
    """
    if keys.wallets:
        _stage(cursor, "stage_wallet", wallet_id=pa.array(sorted(keys.wallets), pa.string()))
        run(cursor, sql.ADD_WALLETS)
    if keys.assets:
        pairs = sorted(keys.assets)
        _stage(
            cursor,
            "stage_asset",
            network=pa.array([network for network, _ in pairs], pa.string()),
            asset=pa.array([asset for _, asset in pairs], pa.string()),
        )
        run(cursor, sql.ADD_ASSETS)
    if keys.hours:
        _stage(cursor, "stage_hour", hour_start=pa.array(sorted(keys.hours), pa.int64()).cast(TIME))
        run(cursor, sql.ADD_HOURS)
    if keys.models:
        _stage(cursor, "stage_model", model_version=pa.array(sorted(keys.models), pa.string()))
        run(cursor, sql.ADD_MODELS)
    if wallets := sorted(set(described)):
        _stage(cursor, "stage_described_wallet", wallet_id=pa.array(wallets, pa.string()))
        for statement in (sql.CLOSE_PLACEHOLDERS, sql.DROP_WALLET_HISTORY, sql.FOLD_WALLET_HISTORY):
            run(cursor, statement)
    if models := sorted(set(trained)):
        _stage(cursor, "stage_trained_model", model_version=pa.array(models, pa.string()))
        run(cursor, sql.DESCRIBE_MODELS)


def _join(known: set[_Key], new: set[_Key]) -> None:
    if len(known) + len(new) > KNOWN_KEYS_LIMIT:
        known.clear()
    known.update(new)


def _stage(cursor: Cursor, table: str, **columns: pa.Array) -> None:
    cursor.adbc_ingest(table, pa.table(columns), mode="append", db_schema_name="pg_temp")
