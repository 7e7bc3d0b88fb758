"""A Kafka consumer whose poll gives columns: what confluent-kafka's `Consumer` does, less the object for every message."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import finalize, ref

import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError, TopicPartition

from domain import log as domain_log
from domain.errors import LogError
from infra.librdkafka import (
    ASSIGN_PARTITIONS,
    NO_CONSUMER_CLOSE,
    PartitionListOf,
    RebalanceCallback,
    check,
    check_error,
    library,
    new_consumer,
    partition_count,
    partitions_in,
)
from infra.message_columns import MESSAGE_WORDS, batch_of, destroy, heads_of, load
from projections.records import RecordBatch

SLICE_S = 0.2  # the longest that one call waits: in between Python sees to its signals, Ctrl-C among them
LEADER_S = 1.0  # so long a partition's leader is waited for before it is read from its beginning
_PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)  # the client connects again by itself
_CANNOT = "the log cannot be read"
Rebalanced = Callable[["ColumnConsumer", list[TopicPartition]], None]


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought: one batch a topic, and partitions whose end was reached (with `enable.partition.eof`)."""

    batches: list[RecordBatch]
    ended: list[domain_log.TopicPartition]


class _Group:
    """What is told of a rebalance; apart from the consumer, for the library's callback must not keep that alive."""

    def __init__(self) -> None:
        self.consumer: Callable[[], ColumnConsumer | None] = lambda: None
        self.on_assign: Rebalanced | None = None
        self.on_revoke: Rebalanced | None = None
        self.on_lost: Rebalanced | None = None
        self.has_answered = False
        self.raised: BaseException | None = None
        self.callback = RebalanceCallback(self._rebalance)

    def _rebalance(self, handle: int, code: int, given: Any, _: Any) -> None:
        consumer = self.consumer()
        self.has_answered = False
        is_assign = code == ASSIGN_PARTITIONS
        try:
            told = self.on_assign if is_assign else self.on_revoke
            if not is_assign and self.on_lost is not None and library().rd_kafka_assignment_lost(handle):
                told = self.on_lost
            if told is not None and consumer is not None:
                told(consumer, partitions_in(given))
        except BaseException as error:  # nothing can be raised through the library: `poll` and `close` do
            self.raised = error
        # The group waits for an answer: where nobody gave one, what was proposed is taken.
        if not self.has_answered:
            try:
                _answer(handle, is_assign, given)
            except LogError as error:
                self.raised = self.raised or error


def _answer(handle: int, is_assign: bool, given: Any) -> None:
    lib = library()
    if lib.rd_kafka_rebalance_protocol(handle) == b"COOPERATIVE":
        call = lib.rd_kafka_incremental_assign if is_assign else lib.rd_kafka_incremental_unassign
        check_error(call(handle, given), _CANNOT)
    else:
        check(lib.rd_kafka_assign(handle, given if is_assign else None), _CANNOT)


class ColumnConsumer:
    """Reads records in columns. Used by one thread at a time.

    Args:
        options: those of librdkafka, as confluent-kafka's `Consumer` takes them.

    Raises:
        LogError: the client refuses an option.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        load()
        self._group = _Group()
        self._group.consumer = ref(self)
        self._handle = new_consumer(options, self._group.callback)
        self._queue = library().rd_kafka_queue_get_consumer(self._handle)
        # The group's callback is kept by the finalizer until the library has let go of it.
        self._release = finalize(self, _release, self._handle, self._queue, self._group)
        self._release.atexit = False

    def subscribe(
        self,
        topics: Sequence[str],
        on_assign: Rebalanced | None = None,
        on_revoke: Rebalanced | None = None,
        on_lost: Rebalanced | None = None,
    ) -> None:
        """Join the group. The callbacks run inside `poll` and `close`, with this consumer and the partitions; what they raise
        is raised there.

        Args:
            on_assign: partitions come in; it may `assign` or `incremental_assign` them with positions of its own.
            on_revoke: partitions are about to go.
            on_lost: partitions are another's already; without it `on_revoke` is called.

        Raises:
            LogError: the client refuses.
        """
        self._group.on_assign, self._group.on_revoke, self._group.on_lost = on_assign, on_revoke, on_lost
        with PartitionListOf(TopicPartition(topic, -1) for topic in topics) as parts:
            check(library().rd_kafka_subscribe(self._open_handle(), parts), "the group cannot be joined")

    def assign(self, parts: Sequence[TopicPartition]) -> None:
        """Read these partitions and no others, each from its offset.

        Raises:
            LogError: the client refuses.
        """
        self._group.has_answered = True
        self._meet_leaders(parts)
        with PartitionListOf(parts) as given:
            check(library().rd_kafka_assign(self._open_handle(), given), _CANNOT)

    def incremental_assign(self, parts: Sequence[TopicPartition]) -> None:
        """Read these partitions too, each from its offset.

        Raises:
            LogError: the client refuses.
        """
        self._group.has_answered = True
        self._meet_leaders(parts)
        with PartitionListOf(parts) as given:
            check_error(library().rd_kafka_incremental_assign(self._open_handle(), given), _CANNOT)

    def incremental_unassign(self, parts: Sequence[TopicPartition]) -> None:
        """Read these partitions no longer.

        Raises:
            LogError: the client refuses.
        """
        self._group.has_answered = True
        with PartitionListOf(parts) as given:
            check_error(library().rd_kafka_incremental_unassign(self._open_handle(), given), _CANNOT)

    def partitions(self, topic: str, timeout_s: float) -> list[int]:
        """The partitions of a topic.

        Raises:
            LogError: Kafka does not answer, or does not know the topic.
        """
        return list(range(partition_count(self._open_handle(), topic, timeout_s)))

    def poll(self, max_records: int, timeout_s: float, drain_s: float) -> Polled:
        """Up to `max_records` records.

        Args:
            timeout_s: how long to wait for the first.
            drain_s: how long to gather after it.

        Raises:
            LogError: the log cannot be read, or no longer holds a position.
        """
        # The library waits for as many as are asked for: asking for one first makes an idle wait cheap and a busy one short.
        messages = np.empty(max(1, max_records), np.int64)
        count = self._consume(messages, 1, timeout_s)
        try:
            if count and max_records > 1:
                count += self._consume(messages[1:], max_records - 1, drain_s)
            return _polled(messages[:count])
        finally:
            destroy(messages[:count])

    def close(self) -> None:
        """Leave the group and let go of the client; `on_revoke` is called before. The second call does nothing."""
        if self._release.alive:
            library().rd_kafka_consumer_close(self._handle)
            self._release()
            self._raise()

    def _meet_leaders(self, parts: Sequence[TopicPartition]) -> None:
        """Learn who leads the partitions of which the log must say where they begin.

        The library asks the leader for that; where it knows none yet it tries again half a second later, whenever it learns of one.
        """
        for topic in {part.topic for part in parts if part.offset < 0}:
            with suppress(LogError):  # then it waits, as it would have
                partition_count(self._open_handle(), topic, LEADER_S)

    def _consume(self, messages: npt.NDArray[np.int64], most: int, timeout_s: float) -> int:
        self._open_handle()
        deadline = time.monotonic() + timeout_s
        while True:
            left = max(0.0, deadline - time.monotonic())
            count = library().rd_kafka_consume_batch_queue(self._queue, round(min(left, SLICE_S) * 1000), messages.ctypes.data, most)
            if self._group.raised is not None:
                destroy(messages[: max(0, count)])
                self._raise()
            if count < 0:
                check(library().rd_kafka_last_error(), _CANNOT)
            if count > 0 or left <= SLICE_S:
                return max(0, int(count))

    def _raise(self) -> None:
        raised, self._group.raised = self._group.raised, None
        if raised is not None:
            raise raised

    def _open_handle(self) -> int:
        if not self._release.alive:
            raise RuntimeError("the consumer is closed")
        return self._handle


def _release(handle: int, queue: int, group: _Group) -> None:
    library().rd_kafka_queue_destroy(queue)
    library().rd_kafka_destroy_flags(handle, NO_CONSUMER_CLOSE)


def _polled(messages: npt.NDArray[np.int64]) -> Polled:
    heads = np.empty((len(messages), MESSAGE_WORDS), np.int64)
    heads_of(messages, heads)
    codes = heads[:, 0].astype(np.int32)
    topics, ended = heads[:, 1], []
    good = codes == 0
    for i in np.flatnonzero(~good).tolist():
        if codes[i] == KafkaError._PARTITION_EOF:
            ended.append((_name(int(topics[i])), int(heads[i, 2].astype(np.int32))))
        elif codes[i] not in _PASSING:
            said = library().rd_kafka_message_errstr(int(messages[i])) or b""
            raise LogError(f"{_CANNOT}: {said.decode('utf-8', 'replace')}")
    batches = []
    for topic in dict.fromkeys(topics[good].tolist()):
        rows = np.flatnonzero(good & (topics == topic))
        batches.append(batch_of(_name(topic), *((messages, heads) if len(rows) == len(messages) else (messages[rows], heads[rows]))))
    return Polled(batches, ended)


def _name(topic: int) -> str:
    return str(library().rd_kafka_topic_name(topic).decode())
