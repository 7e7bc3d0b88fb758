"""History read from Kafka by somebody without a group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from domain import log as domain_log
from domain.errors import LogError
from domain.log import Position
from infra.column_consumer import ColumnConsumer
from infra.kafka.admin import TopicAdmin
from infra.kafka.client import DRAIN_S, OPERATION_TIMEOUT_S, READ_OPTIONS, Config
from projections.records import RecordBatch


def read_batches(
    config: Config,
    topics: Sequence[str],
    start: Position,
    end: Position,
    earliest: Position | None = None,
    max_records: int = 50_000,
    *,
    with_aborted: bool = False,
) -> Iterator[RecordBatch]:
    """Every committed record from `start` (or the earliest) up to `end`, in batches of one topic; a reader without a group.

    Args:
        with_aborted: records of aborted transactions too; `end` must not lie beyond the last stable offset.

    Raises:
        LogError: the log does not answer, or no longer holds `start`.
    """
    open_parts = {tp for tp in end if tp[0] in topics and end[tp] > max(start.get(tp, 0), (earliest or {}).get(tp, 0))}
    if not open_parts:
        return
    options = {**config, **READ_OPTIONS, "group.id": "tidemark-reader", "enable.partition.eof": True}
    if with_aborted:
        options["isolation.level"] = "read_uncommitted"
    consumer = ColumnConsumer(options)
    try:
        # An offset, not "the beginning", wherever one is known: what retention takes in between is missed with an error, never in silence.
        begin = {**(earliest or {}), **start}
        consumer.assign([consumer_place(tp, begin) for tp in sorted(open_parts)])
        deadline = time.monotonic() + OPERATION_TIMEOUT_S
        while open_parts:
            polled = consumer.poll(max_records, 0.5, DRAIN_S)
            if polled.batches or polled.ended:
                deadline = time.monotonic() + OPERATION_TIMEOUT_S
            elif time.monotonic() > deadline:
                raise LogError(f"Kafka sent nothing for {OPERATION_TIMEOUT_S:.0f} s, still to read: {sorted(open_parts)[:3]}")
            finished = set(polled.ended)
            for batch in polled.batches:
                ends = np.zeros(int(batch.partitions.max()) + 1, np.int64)
                for tp, next_offset in batch.next_offsets().items():
                    ends[tp[1]] = end[tp]
                    if next_offset >= end[tp]:
                        finished.add(tp)
                within = batch.offsets < ends[batch.partitions]
                if within.all():
                    yield batch
                elif within.any():
                    yield batch.take(np.flatnonzero(within))
            done = finished & open_parts
            if done:
                open_parts -= done
                consumer.incremental_unassign([TopicPartition(*tp) for tp in done])
    finally:
        consumer.close()


def last_record_ends(config: Config, admin: TopicAdmin, topics: Sequence[str]) -> dict[domain_log.TopicPartition, int]:
    """For each partition the offset after its last committed record: the end without the transaction markers behind it."""
    ends, starts = admin.ends(topics), admin.starts(topics)
    found: dict[domain_log.TopicPartition, int] = dict.fromkeys(ends, 0)
    window = 16
    pending = {tp for tp, end in ends.items() if end > starts[tp]}
    while pending:
        begin = {tp: max(starts[tp], ends[tp] - window) for tp in pending}
        for batch in read_batches(config, topics, begin, {tp: ends[tp] for tp in pending}, starts):
            for tp, next_offset in batch.next_offsets().items():
                found[tp] = max(found[tp], next_offset)
        pending = {tp for tp in pending if not found[tp] and begin[tp] > starts[tp]}
        window *= 16
    return found


def consumer_place(tp: domain_log.TopicPartition, position: Position) -> TopicPartition:
    """Where a consumer begins a partition: at its position, else at the earliest record."""
    return TopicPartition(tp[0], tp[1], position.get(tp, OFFSET_BEGINNING))
