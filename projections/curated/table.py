"""The curated table's layout: its columns are the contract's fields, its rows the decoded events, its position a snapshot property.

Nested groups are flattened (`payment.country` → `payment_country`); beside the fields stand the coordinates in the log, under the
warehouse's names. A field that the contract gains becomes an optional column; one that it loses stays, empty from then on.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import Table
from pyiceberg.table.snapshots import ancestors_of
from pyiceberg.transforms import DayTransform

from domain.log import Position
from projections.curated.catalog import NAMESPACE, translated
from projections.errors import StoreDisagrees, StoreUnavailable
from schema_registry.column_codec import TIME, arrow_schema
from schema_registry.contracts import contracts, fields

EVENT_TYPE = "TransactionRecorded"
DAY = "occurred_day"
"""The partition: the day of `occurred_at` in UTC."""
POSITION = "tidemark.position"
"""Property of every snapshot of ours: the position up to which the table is true, as JSON."""

_MICROS_PER_MS = 1_000
_COORDINATES = {
    "log_topic": (pa.string(), False, "Topic of the record."),
    "log_partition": (pa.int32(), False, "Partition of the record."),
    "log_offset": (pa.int64(), False, "Offset of the record."),
    "seq": (pa.int64(), True, "Place in the one total order; null where the record has none."),
    "ingested_at": (TIME, False, "When Kafka took the record in, UTC."),
}
_LOG_NAMES = {"log_topic": "_topic", "log_partition": "_partition", "log_offset": "_offset"}
_EVOLVE_ATTEMPTS = 5  # every start of another worker may win once

PROPERTIES = {
    "format-version": "2",
    # pyiceberg would repeat a lost commit on top of the winner's: both writers' rows would stand there. Losing must be heard of.
    "commit.retry.num-retries": "0",
    # One small manifest a commit otherwise, for ever.
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "50",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "write.parquet.compression-codec": "zstd",
    "write.parquet.compression-level": "1",
    # Bounds of 50 columns are most of a manifest's bytes; these are what a reader prunes by.
    "write.metadata.metrics.default": "counts",
    **{f"write.metadata.metrics.column.{name}": "full" for name in ("occurred_at", "log_partition", "log_offset", "seq", "ingested_at")},
}


def table_name(generation: int) -> str:
    """The table of one generation."""
    return f"transactions_g{generation:d}"


def columns() -> pa.Schema:
    """The columns of the contract's latest version, with their docs, coordinates last."""
    docs = {tag.path: f"{tag.doc} Unit: {tag.unit}." if tag.unit else tag.doc for tag in fields(contracts()[EVENT_TYPE].latest)}
    found = [pa.field(_column(field.name), field.type, True, {"doc": docs[field.name]}) for field in arrow_schema(EVENT_TYPE)]
    found += [pa.field(name, kind, nullable, {"doc": doc}) for name, (kind, nullable, doc) in _COORDINATES.items()]
    schema = pa.schema(found)
    if len(set(schema.names)) != len(schema.names):
        raise ValueError(f"expected a column for each field of {EVENT_TYPE}, found two of one name among {schema.names}")
    return schema


def rows(events: pa.Table | None) -> pa.Table:
    """Decoded events as rows of the table; none gives none."""
    schema = columns()
    if events is None:
        return schema.empty_table()
    seq = events["_seq"].cast(pa.int64())
    found: dict[str, Any] = {_column(name): events[name] for name in arrow_schema(EVENT_TYPE).names}
    found["log_topic"], found["log_partition"], found["log_offset"] = events["_topic"], events["_partition"], events["_offset"]
    found["seq"] = pc.if_else(pc.less(seq, 0), pa.scalar(None, pa.int64()), seq)
    found["ingested_at"] = pc.multiply(events["_timestamp_ms"].cast(pa.int64()), _MICROS_PER_MS)
    return pa.table([found[field.name].cast(field.type) for field in schema], schema=schema)


def canonical(stored: pa.Table) -> pa.Table:
    """Rows in the form in which they are compared."""
    names = columns().names
    return stored.select(names).rename_columns([_LOG_NAMES.get(name, name) for name in names])


def open_table(catalog: SqlCatalog, generation: int, bucket: str) -> Table:
    """The table of a generation with a column for each field of the contract, made where it is missing.

    Raises:
        StoreUnavailable: catalog or S3 does not answer.
    """
    identifier = (NAMESPACE, table_name(generation))
    for _ in range(_EVOLVE_ATTEMPTS):
        with translated("opening the table"):
            try:
                table = catalog.load_table(identifier)
            except NoSuchTableError:
                table = _create(catalog, generation, bucket)
            missing = set(columns().names) - set(table.schema().column_names)
            if not missing:
                return table
            wanted = pa.schema([field for field in columns() if field.name in missing])
            try:
                with table.update_schema() as update:
                    update.union_by_name(wanted)
                return table
            except CommitFailedException:
                continue  # another worker committed meanwhile, perhaps this very column
    raise StoreUnavailable(f"curated: {table_name(generation)} is written to all the time, so it cannot gain the columns {sorted(missing)}")


def position_of(table: Table) -> Position:
    """The position of the current snapshot, empty before the first.

    A snapshot that another engine made (a compaction by Spark) carries none: then that of the nearest one before it holds.

    Raises:
        StoreDisagrees: there are snapshots, and none says how far the table is.
    """
    current = table.current_snapshot()
    if current is None:
        return {}
    for snapshot in ancestors_of(current, table.metadata):
        text = snapshot.summary.additional_properties.get(POSITION) if snapshot.summary is not None else None
        if text is not None:
            return {_place(name): int(offset) for name, offset in json.loads(text).items()}
    raise StoreDisagrees(
        f"curated: no snapshot of {'.'.join(table.name())} has the property {POSITION}: another engine wrote and expired ours;"
        " roll the table back to a snapshot of ours, or run `tidemark rebuild curated`"
    )


def position_text(position: Position) -> dict[str, str]:
    """The snapshot property that stores a position."""
    return {POSITION: json.dumps({f"{topic}/{partition}": offset for (topic, partition), offset in sorted(position.items())})}


def _create(catalog: SqlCatalog, generation: int, bucket: str) -> Table:
    name = table_name(generation)
    # A folder of its own for each creation: nobody's clean-up can meet the files of another table of that name.
    location = f"s3://{bucket}/curated/{name}-{uuid4().hex[:12]}"
    try:
        with (
            catalog.create_table_transaction(
                (NAMESPACE, name), columns(), location=location, partition_spec=UNPARTITIONED_PARTITION_SPEC, properties=PROPERTIES
            ) as creation,
            creation.update_spec() as spec,
        ):
            spec.add_field("occurred_at", DayTransform(), DAY)
    except (TableAlreadyExistsError, CommitFailedException):
        pass  # another worker was faster
    return catalog.load_table((NAMESPACE, name))


def _column(path: str) -> str:
    return path.replace(".", "_")


def _place(name: str) -> tuple[str, int]:
    topic, _, partition = name.rpartition("/")
    return topic, int(partition)
