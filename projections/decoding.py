"""From records to event tables: decode in columns, add each row's coordinates, and name what could not be decoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from projections.protocol import EventBatch, Rejection
from projections.records import RecordBatch
from schema_registry.column_codec import ColumnCodec


def decode(codec: ColumnCodec, batches: Sequence[RecordBatch]) -> tuple[EventBatch, list[Rejection]]:
    """Decode records of several topics.

    Returns:
        The tables by event type with the columns of `COORDINATES`, and a rejection for each record that is no event.
    """
    parts: dict[str, list[pa.Table]] = {}
    rejections: list[Rejection] = []
    for batch in batches:
        decoded = codec.decode(batch.values)
        rejections += [
            Rejection(batch.topic, int(batch.partitions[f.index]), int(batch.offsets[f.index]), f.reason, f.message)
            for f in decoded.failures
        ]
        seqs = batch.seqs()
        for name, found in decoded.tables.items():
            parts.setdefault(name, []).append(_with_coordinates(found.table, batch, found.indexes, seqs))
    return EventBatch({name: pa.concat_tables(tables) for name, tables in parts.items()}), rejections


def drop(batch: EventBatch, rejections: Sequence[Rejection]) -> EventBatch:
    """The batch without the rejected rows."""
    if not rejections:
        return batch
    gone = {(r.topic, r.partition, r.offset) for r in rejections}
    tables = {}
    for name, table in batch.tables.items():
        places = zip(*(table[c].to_pylist() for c in ("_topic", "_partition", "_offset")), strict=True)
        tables[name] = table.filter(pa.array([place not in gone for place in places], pa.bool_()))
    return EventBatch(tables)


def _with_coordinates(table: pa.Table, batch: RecordBatch, indexes: np.ndarray, seqs: np.ndarray) -> pa.Table:
    topic = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(indexes), np.int32)), pa.array([batch.topic]))
    return (
        table.append_column("_topic", topic.cast(pa.string()))
        .append_column("_partition", pa.array(batch.partitions[indexes]))
        .append_column("_offset", pa.array(batch.offsets[indexes]))
        .append_column("_seq", pa.array(seqs[indexes]))
        .append_column("_timestamp_ms", pa.array(batch.timestamps_ms[indexes]))
    )
