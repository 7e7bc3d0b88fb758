"""Repair of a part of the warehouse in place: the rows of some records are deleted and applied again, in one transaction a slice.

Idempotent: what is applied again is what the log says, and the checkpoint stays where it is. A slice lies below the checkpoint; its
transaction holds the checkpoint's rows, which every batch of the live worker takes first, so that the two never meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
from adbc_driver_manager.dbapi import Cursor

from domain.log import TopicPartition
from projections.errors import ProjectionError
from projections.protocol import EventBatch
from projections.warehouse.connection import run
from projections.warehouse.dimensions import DimensionKeys, load_dimensions
from projections.warehouse.facts import FACTS, Fact, fact_rows
from projections.warehouse.sink import WarehouseProjection
from projections.warehouse.tables import LOG_COLUMNS, warehouse_metadata
from schema_registry.column_codec import TIME

# In the sink's own order, and all of them: a batch of the live worker waits here before it has written anything.
LOCK_CHECKPOINTS = 'SELECT topic, partition, next_offset FROM checkpoints ORDER BY topic COLLATE "C", partition FOR UPDATE'
STAGE_RANGES = """
CREATE TEMPORARY TABLE IF NOT EXISTS stage_repair_range (topic text, log_partition integer, first_offset bigint, next_offset bigint)
ON COMMIT DELETE ROWS
"""
DELETE_ROWS = """
DELETE FROM {table} f USING stage_repair_range r
WHERE r.topic = $1 AND f.log_partition = r.log_partition AND f.log_offset >= r.first_offset AND f.log_offset < r.next_offset
RETURNING {columns}
"""
DELETE_DIMENSIONS = (
    "DELETE FROM dim_wallet WHERE wallet_id IN (SELECT wallet_id FROM stage_wallet)",
    "DELETE FROM dim_asset d USING stage_asset s WHERE d.network = s.network AND d.asset = s.asset",
    "DELETE FROM dim_time WHERE hour_start IN (SELECT hour_start FROM stage_hour)",
    "DELETE FROM dim_model WHERE model_version IN (SELECT model_version FROM stage_model)",
)
CLEAR_STAGES = tuple(f"DELETE FROM {name}" for name in ("stage_wallet", "stage_asset", "stage_hour", "stage_model"))
_ASSETS = ("asset", "counter_asset", "fee_asset")

Range = tuple[str, int, int, int]
"""(topic, partition, first offset, the offset after the last)."""


class RepairRefused(ProjectionError):
    """A slice cannot be repaired in place; nothing of it was changed. The message says why."""


@dataclass(frozen=True, slots=True)
class Reapplied:
    """Rows of facts deleted and written by one slice."""

    deleted: int
    written: int


class RepairableWarehouse(WarehouseProjection):
    """The warehouse of one generation, with what repairs it."""

    def reapply(self, ranges: Sequence[Range], batch: EventBatch) -> Reapplied:
        """Delete every fact of these ranges and write those of the batch; fold the dimensions that either names again.

        Args:
            ranges: below the checkpoint; they do not overlap.
            batch: the events of these ranges, as the log has them.

        Raises:
            RepairRefused: a range reaches past the checkpoint: those rows are the live worker's.
            StoreUnavailable: the warehouse does not answer; nothing was changed.
        """
        old, new = DimensionKeys(), DimensionKeys()
        deleted = written = 0
        with self._transaction("repairing a slice") as cursor:
            checkpoint: dict[TopicPartition, int] = {(t, p): offset for t, p, offset in run(cursor, LOCK_CHECKPOINTS)}
            for topic, partition, _, end in ranges:
                if end > (reached := checkpoint.get((topic, partition), 0)):
                    raise RepairRefused(f"{topic}-{partition}: expected a slice below the checkpoint {reached}, found one up to {end}")
            run(cursor, STAGE_RANGES)
            _stage_ranges(cursor, ranges)
            for fact in _tables():
                rows = _delete(cursor, fact)
                deleted += rows.num_rows
                if rows.num_rows:
                    old.add(fact, rows)
            for fact, rows in fact_rows(batch):
                cursor.adbc_ingest(fact.table, rows, mode="append")
                new.add(fact, rows)
                written += rows.num_rows
            _fold_again(cursor, old, new)
        return Reapplied(deleted, written)

    def places_of(self, wallet_id: str) -> set[tuple[str, int, int]]:
        """Where the records stand whose rows name a wallet: (topic, partition, offset).

        Raises:
            StoreUnavailable: the warehouse does not answer.
        """
        found: set[tuple[str, int, int]] = set()
        with self._transaction("looking for a wallet's rows") as cursor:
            for fact in _tables():
                names = [name for name in _key_columns(fact.table) if name.endswith("wallet_id")]
                if names:
                    condition = " OR ".join(f"{name} = $1" for name in names)
                    rows = run(cursor, f"SELECT log_partition, log_offset FROM {fact.table} WHERE {condition}", (wallet_id,))
                    found.update((fact.topic, partition, offset) for partition, offset in rows)
        return found


def _fold_again(cursor: Cursor, old: DimensionKeys, new: DimensionKeys) -> None:
    """Make the dimensions of every key that came or went what the facts say now."""
    gone = old.without(new)
    kept = _still_named(cursor, gone)
    touched = DimensionKeys(old.wallets | new.wallets, old.assets | new.assets, old.hours | new.hours, old.models | new.models)
    _stage_keys(cursor, touched)
    for statement in (*DELETE_DIMENSIONS, *CLEAR_STAGES):
        run(cursor, statement)
    wanted = DimensionKeys(new.wallets | kept.wallets, new.assets | kept.assets, new.hours | kept.hours, new.models | kept.models)
    load_dimensions(cursor, wanted, wanted.wallets, wanted.models)


def _still_named(cursor: Cursor, gone: DimensionKeys) -> DimensionKeys:
    """Which keys of deleted rows other facts still name: only these keep their dimension. Usually there are none to ask for."""
    kept = DimensionKeys()
    if not (gone.wallets or gone.assets or gone.hours or gone.models):
        return kept
    _stage_keys(cursor, gone)
    for fact in _tables():
        columns = _key_columns(fact.table)
        for name in [name for name in columns if name.endswith("wallet_id")]:
            statement = f"SELECT DISTINCT {name} FROM {fact.table} WHERE {name} IN (SELECT wallet_id FROM stage_wallet)"
            kept.wallets.update(wallet for (wallet,) in run(cursor, statement))
        if "model_version" in columns:
            statement = f"SELECT DISTINCT model_version FROM {fact.table} WHERE model_version IN (SELECT model_version FROM stage_model)"
            kept.models.update(model for (model,) in run(cursor, statement))
        if fact.table == "fact_transaction":
            for name in _ASSETS:
                statement = (
                    f"SELECT DISTINCT f.network, f.{name} FROM fact_transaction f"
                    f" JOIN stage_asset s ON s.network = f.network AND s.asset = f.{name}"
                )
                kept.assets.update((network, asset) for network, asset in run(cursor, statement))
            cursor.execute("SELECT DISTINCT occurred_hour FROM fact_transaction WHERE occurred_hour IN (SELECT hour_start FROM stage_hour)")
            kept.hours.update(cursor.fetch_arrow_table()["occurred_hour"].cast(TIME).cast(pa.int64()).to_pylist())
    for statement in CLEAR_STAGES:
        run(cursor, statement)
    return kept


def _delete(cursor: Cursor, fact: Fact) -> pa.Table:
    """Delete a table's rows of the staged ranges; the keys that they named."""
    columns = ", ".join(f"f.{name}" for name in _key_columns(fact.table))
    cursor.execute(DELETE_ROWS.format(table=fact.table, columns=columns), (fact.topic,))
    return cursor.fetch_arrow_table()


def _stage_ranges(cursor: Cursor, ranges: Sequence[Range]) -> None:
    topics, partitions, firsts, ends = zip(*ranges, strict=True)
    table = pa.table(
        {
            "topic": pa.array(topics, pa.string()),
            "log_partition": pa.array(partitions, pa.int32()),
            "first_offset": pa.array(firsts, pa.int64()),
            "next_offset": pa.array(ends, pa.int64()),
        }
    )
    cursor.adbc_ingest("stage_repair_range", table, mode="append", db_schema_name="pg_temp")


def _stage_keys(cursor: Cursor, keys: DimensionKeys) -> None:
    pairs = sorted(keys.assets)
    stages = {
        "stage_wallet": {"wallet_id": pa.array(sorted(keys.wallets), pa.string())},
        "stage_asset": {
            "network": pa.array([network for network, _ in pairs], pa.string()),
            "asset": pa.array([asset for _, asset in pairs], pa.string()),
        },
        "stage_hour": {"hour_start": pa.array(sorted(keys.hours), pa.int64()).cast(TIME)},
        "stage_model": {"model_version": pa.array(sorted(keys.models), pa.string())},
    }
    for name, columns in stages.items():
        if len(next(iter(columns.values()))):
            cursor.adbc_ingest(name, pa.table(columns), mode="append", db_schema_name="pg_temp")


def _tables() -> Iterable[Fact]:
    """One fact for each fact table: several event types may share one."""
    return {fact.table: fact for fact in FACTS}.values()


def _key_columns(table: str) -> list[str]:
    """The columns that name dimensions' keys, and the log's own, of which there is always one."""
    columns = list(warehouse_metadata().tables[table].columns.keys())
    named = [name for name in columns if name.endswith("wallet_id") or name == "model_version"]
    if table == "fact_transaction":
        named += ["network", *_ASSETS, "occurred_hour"]
    return [*named, *LOG_COLUMNS[1:]]
