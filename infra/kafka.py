"""Kafka behind our ports: topics, the runner's source, transactional appends, and the event log.

All that is known of confluent-kafka lives here; its errors leave as `LogError` or `Fenced`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import numpy as np
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from domain import log as domain_log
from domain.errors import Fenced, LogError
from domain.log import NewRecord, Position, Record
from infra.column_consumer import ColumnConsumer
from projections.failpoints import OFFSETS_SENT, PRODUCED, reach
from projections.records import RecordBatch
from projections.work import Append
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS

Config = Mapping[str, Any]
_T = TypeVar("_T")

EVENT_BYTES = 16 << 20  # of one record: a command of the broker's own limit of 1 MiB must fit into quarantine whole

_REFRESH_MS = 5_000  # how soon new partitions of a topic are met
READ_OPTIONS: Config = {
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # a position that the log no longer holds must be seen, never skipped
    "isolation.level": "read_committed",
    "queued.min.messages": 200_000,
    "queued.max.messages.kbytes": 131_072,
    "max.partition.fetch.bytes": 4 << 20,
    "fetch.max.bytes": 32 << 20,
    "fetch.queue.backoff.ms": 1,
    "fetch.wait.max.ms": 10,
    "topic.metadata.refresh.interval.ms": _REFRESH_MS,
}
_LINGER_MS = 5
_WRITE: Config = {
    "topic.metadata.refresh.interval.ms": _REFRESH_MS,
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": _LINGER_MS,
    "message.max.bytes": EVENT_BYTES,
    "batch.size": 900_000,  # many small records together stay below the command topic's limit
    "batch.num.messages": 20_000,
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 262_144,
}
# Without these a transactional producer waits 92 ms for each new partition that it writes to.
_TRANSACTIONAL: Config = {**_WRITE, "linger.ms": 0, "retry.backoff.ms": 5, "retry.backoff.max.ms": 20}
_FENCED = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED, KafkaError.FENCED_INSTANCE_ID)
_NOT_YET = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)  # a topic that was made a moment ago
_PASSING = (KafkaError.UNSTABLE_OFFSET_COMMIT, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR)
SETTLE_S = 0.5  # how long an open transaction is waited for before its records are left out
OPERATION_TIMEOUT_S = 30.0  # longer than a broker's restart
_ANY_PARTITION, _NOW = -1, 0  # what `Producer.produce` takes for "by the key" and "at this moment"
SESSION_MS = 10_000  # so long after its last sign of life a worker's partitions go to the others
LOOK_TIMEOUT_S = 1.0
LOOK_S = 5.0  # how often who reads every partition looks for new ones
DRAIN_S = 0.005  # how long a poll gathers after its first record: latency paid for fewer, larger batches


class Unanswered(LogError):
    """Kafka does not answer."""


class TopicAdmin:
    """Topics and offsets. Keeps its AdminClient: calls fail once it is collected."""

    def __init__(self, config: Config) -> None:
        self._config = dict(config)
        self._admin = AdminClient(self._config)

    def create(self, partitions: Mapping[str, int], replication: int = 1, retention_ms: int = -1) -> list[str]:
        """Create the topics that are missing; kept for ever, never compacted.

        Returns:
            The topics created.

        Raises:
            LogError: the cluster refuses, or a topic stands with fewer partitions.
        """
        existing = self._topics()
        for topic, count in partitions.items():
            if existing.get(topic, count) < count:
                raise LogError(f"topic {topic}: expected {count} partitions or more, found {existing[topic]}: it is not ours")
        missing = [topic for topic in partitions if topic not in existing]
        settings = {"cleanup.policy": "delete", "retention.ms": str(retention_ms), "message.timestamp.type": "LogAppendTime"}
        large = {"max.message.bytes": str(EVENT_BYTES)}
        new = [
            NewTopic(topic, partitions[topic], replication, config=settings if topic == COMMANDS else settings | large) for topic in missing
        ]
        if new:
            for topic, future in self._admin.create_topics(new, operation_timeout=OPERATION_TIMEOUT_S).items():
                try:
                    future.result()
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise LogError(f"topic {topic} cannot be created: {error}") from error
        return missing

    def delete(self, topics: Sequence[str]) -> None:
        """Delete topics of our own making; returns when the cluster has agreed.

        Raises:
            LogError: the cluster refuses.
        """
        for topic, future in self._admin.delete_topics(list(topics), operation_timeout=OPERATION_TIMEOUT_S).items():
            try:
                future.result()
            except KafkaException as error:
                raise LogError(f"topic {topic} cannot be deleted: {error}") from error

    def grow(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions; returns when the cluster shows them.

        Raises:
            LogError: the cluster refuses, or does not show them in time.
        """
        (future,) = self._admin.create_partitions([NewPartitions(topic, partitions)], operation_timeout=OPERATION_TIMEOUT_S).values()
        try:
            future.result()
        except KafkaException as error:
            raise LogError(f"topic {topic} cannot grow to {partitions} partitions: {error}") from error
        deadline = time.monotonic() + OPERATION_TIMEOUT_S
        while self._topics().get(topic, 0) < partitions:
            if time.monotonic() > deadline:
                raise LogError(f"topic {topic}: the cluster agreed to {partitions} partitions and does not show them")
            time.sleep(0.1)

    def log_id(self) -> str:
        """Names this cluster: state kept for one log must never be taken for another's."""
        return str(self._cluster().cluster_id)

    def missing(self, topics: Iterable[str]) -> list[str]:
        """Which of the topics do not exist."""
        existing = self._topics()
        return [topic for topic in topics if topic not in existing]

    def partitions(self, topics: Iterable[str], timeout_s: float | None = None) -> list[domain_log.TopicPartition]:
        """Every partition of the topics that exist.

        Raises:
            Unanswered: Kafka does not answer in time.
        """
        existing = self._topics(timeout_s)
        return [(topic, partition) for topic in topics for partition in range(existing.get(topic, 0))]

    def ends(self, topics: Iterable[str]) -> dict[domain_log.TopicPartition, int]:
        """The last stable offset of each partition: what a reader of committed records reaches.

        A commit returns a moment before its markers stand in every partition: where a transaction is open, it is waited for, up
        to `SETTLE_S`, so that whoever committed sees its own records.
        """
        topics = tuple(topics)
        deadline = time.monotonic() + SETTLE_S
        while True:
            latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
            written = self._offsets(topics, latest, IsolationLevel.READ_UNCOMMITTED)
            stable = self._offsets(topics, latest)
            if time.monotonic() > deadline or all(stable.get(tp, 0) >= end for tp, end in written.items()):
                return stable
            time.sleep(0.01)

    def written(self, topics: Iterable[str]) -> dict[domain_log.TopicPartition, int]:
        """The offset after all that stands in each partition, records of open transactions included."""
        return self._offsets(topics, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)  # type: ignore[no-untyped-call]

    def starts(self, topics: Iterable[str]) -> dict[domain_log.TopicPartition, int]:
        """The earliest offset that each partition still holds."""
        return self._offsets(topics, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def at_time(self, topics: Iterable[str], at_ms: int) -> dict[domain_log.TopicPartition, int]:
        """For each partition the first offset appended at a time (milliseconds since 1970) or later; its end where there is none."""
        topics = tuple(topics)
        ends = self.ends(topics)
        found = self._offsets(topics, OffsetSpec.for_timestamp(at_ms))
        return {tp: offset if offset >= 0 else ends[tp] for tp, offset in found.items()}

    def committed(self, group: str, topics: Iterable[str]) -> dict[domain_log.TopicPartition, int]:
        """The offsets that a group has stored; partitions without one are absent. Offsets of a transaction that is just being committed
        are waited for.

        Raises:
            LogError: the coordinator does not answer.
        """
        wanted = [TopicPartition(topic, partition) for topic, partition in self.partitions(topics)]
        deadline = time.monotonic() + OPERATION_TIMEOUT_S
        while wanted:
            request = ConsumerGroupTopicPartitions(group, wanted)
            try:
                (future,) = self._admin.list_consumer_group_offsets([request], require_stable=True).values()
                parts = future.result().topic_partitions
            except KafkaException as error:
                if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                    return {}
                if error.args[0].code() not in _PASSING or time.monotonic() > deadline:
                    raise LogError(f"the offsets of {group} cannot be read: {error}") from error
                parts = None
            if parts is not None and all(part.error is None for part in parts):
                return {(part.topic, part.partition): part.offset for part in parts if part.offset != OFFSET_INVALID}
            if time.monotonic() > deadline:
                raise LogError(f"the offsets of {group} cannot be read: a transaction of it stays open")
            time.sleep(0.01)
        return {}

    def _topics(self, timeout_s: float | None = None) -> dict[str, int]:
        return {name: len(topic.partitions) for name, topic in self._cluster(timeout_s).topics.items()}

    def _cluster(self, timeout_s: float | None = None) -> Any:
        try:
            return self._admin.list_topics(timeout=OPERATION_TIMEOUT_S if timeout_s is None else timeout_s)
        except KafkaException as error:
            raise Unanswered(f"Kafka does not answer: {error}; `tidemark doctor` says what is down") from error

    def _offsets(
        self, topics: Iterable[str], spec: OffsetSpec, isolation: IsolationLevel = IsolationLevel.READ_COMMITTED
    ) -> dict[domain_log.TopicPartition, int]:
        wanted = {TopicPartition(topic, partition): spec for topic, partition in self.partitions(topics)}
        if not wanted:
            return {}
        return _retrying(
            lambda: self._list_offsets(wanted, isolation), f"the offsets of {sorted({part.topic for part in wanted})} cannot be read"
        )

    def _list_offsets(self, wanted: dict[TopicPartition, OffsetSpec], isolation: IsolationLevel) -> dict[domain_log.TopicPartition, int]:
        futures = self._admin.list_offsets(wanted, isolation_level=isolation, request_timeout=OPERATION_TIMEOUT_S)
        return {(part.topic, part.partition): future.result().offset for part, future in futures.items()}


class Partitions(Protocol):
    """Which partitions topics have, and which they may have."""

    def of(self, topics: Iterable[str], timeout_s: float | None = None) -> list[domain_log.TopicPartition]:
        """Every partition that exists; an error where one of them is not to be, `Unanswered` where nobody says."""


class KafkaSource:
    """The runner's source.

    Workers that share a group share one topic's partitions, and with each partition of it go those of the same number of all other topics:
    so every topic's load is spread evenly, where an assignor that looks at their sum may leave the heaviest topic to one worker.

    Args:
        topics: the group shares `transaction-events` if that is among them, else the first.
        group: consumer group.
        instance: static member id, so that a restarted worker takes its partitions back at once.
        is_alone: read every partition whatever others do: for work that is fenced by its transactions.
        drain_s: how long a poll gathers after its first record.
        partitions: which partitions there are and may be; without it those that stand at the moment, unasked and never looked for again.
    """

    def __init__(
        self,
        config: Config,
        topics: Sequence[str],
        group: str,
        instance: str,
        is_alone: bool = False,
        drain_s: float = DRAIN_S,
        partitions: Partitions | None = None,
    ) -> None:
        self._topics = list(topics)
        self._shared = TRANSACTION_EVENTS if TRANSACTION_EVENTS in topics else self._topics[0]
        self._is_alone = is_alone
        self._partitions = partitions
        self._drain_s = drain_s
        options: dict[str, Any] = {**config, **READ_OPTIONS, "group.id": group}
        if not is_alone:
            # Cooperative: who keeps a partition goes on reading it while others move.
            sticky = {"partition.assignment.strategy": "cooperative-sticky"}
            options |= {"group.instance.id": instance, "session.timeout.ms": SESSION_MS, **sticky}
        self._consumer = ColumnConsumer(options)
        self._open = False
        self._held: set[int] = set()
        self._count = 1
        self._taken: set[domain_log.TopicPartition] = set()
        self._has_left = False
        self._looked_at = 0.0
        self._load_position: Callable[[], Position] = dict
        self._on_revoked: Callable[[], None] = lambda: None

    def open(self, load_position: Callable[[], Position], on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """See `projections.runner.Source`.

        Raises:
            LogError: the topics cannot be read, or one has partitions that the log does not know (here or in `poll`).
        """
        self._open = True
        self._load_position, self._on_revoked = load_position, on_revoked
        if self._is_alone:
            position = load_position()
            self._taken = self._wanted()
            self._consumer.assign([_at(tp, position) for tp in sorted(self._taken)])
            return

        def assigned(consumer: ColumnConsumer, parts: list[TopicPartition]) -> None:
            if not self._open:  # told while it leaves: the client knows what to do
                return
            if not parts:  # nothing comes, but others may have got new ones: some of ours may go with these
                self._looked_at = 0.0
                self._take(set())
                return
            self._held |= {part.partition for part in parts}
            self._take(self._wanted() - self._taken)

        def revoked(consumer: ColumnConsumer, parts: list[TopicPartition]) -> None:
            if self._open:
                on_revoked()
            self._give_up(parts)

        def lost(consumer: ColumnConsumer, parts: list[TopicPartition]) -> None:
            on_lost()
            self._give_up(parts)

        self._consumer.subscribe([self._shared], on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """See `projections.runner.Source`.

        Raises:
            LogError: the log cannot be read, or no longer holds the position.
        """
        if self._partitions is not None and time.monotonic() - self._looked_at > LOOK_S:
            self._look()
        self._has_left = False
        batches = self._consumer.poll(max_records, timeout_s, self._drain_s).batches
        # Partitions may go in the midst of a poll that has records of them in its hands: others read them now, or will.
        return self._still_ours(batches) if self._has_left else batches

    def close(self) -> None:
        """Leave the group. Static members keep their partitions for the session timeout."""
        self._open = False
        self._consumer.close()

    def _wanted(self, timeout_s: float | None = None) -> set[domain_log.TopicPartition]:
        """The partitions that are ours to read as things stand."""
        self._looked_at = time.monotonic()
        if self._partitions is not None:
            found = self._partitions.of(self._topics, timeout_s)
        else:
            found = [(topic, partition) for topic in self._topics for partition in self._consumer.partitions(topic, OPERATION_TIMEOUT_S)]
        if self._is_alone:
            return set(found)
        # Partitions never go away: an answer that lacks some is one of a broker that does not know them yet.
        self._count = max(self._count, sum(topic == self._shared for topic, _ in found))
        return {tp for tp in found if self._is_ours(tp)}

    def _is_ours(self, tp: domain_log.TopicPartition) -> bool:
        return tp[1] % self._count in self._held

    def _look(self) -> None:
        """Take in what the topics have got meanwhile; where the shared one has grown, others' partitions may go with its new ones."""
        try:
            wanted = self._wanted(LOOK_TIMEOUT_S)
        except Unanswered:  # a broker that starts again: who reads waits for it, and looks later
            return
        gone = set() if self._is_alone else {tp for tp in self._taken if not self._is_ours(tp)}
        if gone:
            self._on_revoked()
            self._leave(gone)
        self._take(wanted - self._taken)

    def _take(self, fresh: set[domain_log.TopicPartition]) -> None:
        # Who reads every partition had a position for all that there were: new ones begin at their first record.
        position = {} if self._is_alone or not fresh else self._load_position()
        self._consumer.incremental_assign([_at(tp, position) for tp in sorted(fresh)])
        self._taken |= fresh

    def _give_up(self, parts: Sequence[TopicPartition]) -> None:
        self._held -= {part.partition for part in parts}
        self._leave({tp for tp in self._taken if not self._is_ours(tp)})

    def _leave(self, gone: set[domain_log.TopicPartition]) -> None:
        self._consumer.incremental_unassign([TopicPartition(*tp) for tp in sorted(gone)])
        self._taken -= gone
        self._has_left = True

    def _still_ours(self, batches: Sequence[RecordBatch]) -> list[RecordBatch]:
        kept = []
        for batch in batches:
            ours = [partition for topic, partition in self._taken if topic == batch.topic]
            rows = np.flatnonzero(np.isin(batch.partitions, ours))
            if len(rows):
                kept.append(batch.take(rows))
        return kept


class KafkaTransactions:
    """Appends and a group's offsets in one Kafka transaction; the transactional id fences an older owner at construction.

    Raises:
        LogError: Kafka does not answer.
    """

    def __init__(self, config: Config, transactional_id: str, group: str, topics: Sequence[str], admin: TopicAdmin) -> None:
        self._group, self._topics, self._admin = group, tuple(topics), admin
        self._producer = Producer({**config, **_TRANSACTIONAL, "transactional.id": transactional_id})
        # Offsets are stored under the group without being its member: fencing is the transactional id's.
        self._member = Consumer({**config, "group.id": group})
        _retrying(lambda: self._producer.init_transactions(OPERATION_TIMEOUT_S), "the transactional producer cannot start")

    def load_position(self) -> Position:
        """See `projections.work.TransactionalLog`."""
        return self._admin.committed(self._group, self._topics)

    def commit(self, appends: Sequence[Append], records: Sequence[NewRecord], position: Position) -> None:
        """See `projections.work.TransactionalLog`.

        Raises:
            Fenced: a newer owner of the transactional id is active.
            LogError: the log refused.
        """
        producer = self._producer
        try:
            producer.begin_transaction()
            for append in appends:
                _produce_all(producer, append)
            for record in records:
                produce(producer, record.topic, record.value, record.key, list(record.headers))
            reach(PRODUCED)
            offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in position.items()]
            if offsets:
                producer.send_offsets_to_transaction(offsets, self._member.consumer_group_metadata(), OPERATION_TIMEOUT_S)
            reach(OFFSETS_SENT)
            producer.commit_transaction(OPERATION_TIMEOUT_S)
        except KafkaException as error:
            raise self._abort(error) from error

    def close(self) -> None:
        """Release the clients."""
        self._member.close()

    def _abort(self, error: KafkaException) -> LogError:
        cause = error.args[0]
        if cause.code() in _FENCED:
            return Fenced(f"another {self._group} has taken over: this one stops")
        # Whatever it was, an open transaction would hold every reader back and refuse the next one.
        with suppress(KafkaException):
            self._producer.abort_transaction(OPERATION_TIMEOUT_S)
        return LogError(f"{self._group}: the transaction failed: {cause.str()}")


class KafkaEventLog:
    """The event log on Kafka: `domain.log.EventLog`. Each instance needs its own transactional id."""

    def __init__(self, config: Config, transactional_id: str, admin: TopicAdmin) -> None:
        self._config = dict(config)
        self._admin = admin
        self._transactions = KafkaTransactions(config, transactional_id, transactional_id, (), admin)

    def append(self, records: Sequence[NewRecord]) -> None:
        """See `domain.log.EventLog`."""
        if records:
            self._transactions.commit((), records, {})

    def read(self, topics: Sequence[str], start: Position) -> Iterator[Record]:
        """See `domain.log.EventLog`."""
        for batch in read_batches(self._config, topics, start, self._admin.ends(topics), self._admin.starts(topics)):
            for index in range(len(batch)):
                yield batch.record(index)

    def end(self, topics: Sequence[str]) -> dict[domain_log.TopicPartition, int]:
        """See `domain.log.EventLog`."""
        return self._admin.ends(topics)


class PlainProducer:
    """Appends without a transaction, acknowledged by all replicas: for commands and for quarantine.

    Args:
        linger_ms: how long a record waits for company; 0 where one record's own time counts.
    """

    def __init__(self, config: Config, linger_ms: int = _LINGER_MS) -> None:
        self._producer = Producer({**config, **_WRITE, "linger.ms": linger_ms})
        self._failed: str | None = None

    def send(self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        """Queue records; `flush` waits for them. Waits while the queue is full.

        Raises:
            LogError: an earlier record was refused.
        """
        for key, value in zip(keys, values, strict=True):
            produce(self._producer, topic, value, key, None, self._delivered)
        self._producer.poll(0)
        self._check()

    def append(self, records: list[NewRecord]) -> None:
        """Append and wait until all are durable.

        Raises:
            LogError: a record was refused, or Kafka does not answer.
        """
        for record in records:
            produce(self._producer, record.topic, record.value, record.key, list(record.headers), self._delivered)
        self.flush()

    def flush(self) -> None:
        """Wait until all that was sent is durable.

        Raises:
            LogError: a record was refused, or Kafka does not answer.
        """
        left = self._producer.flush(OPERATION_TIMEOUT_S * 4)
        self._check()
        if left:
            raise LogError(f"Kafka did not acknowledge {left} records in {OPERATION_TIMEOUT_S * 4:.0f} s")

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed = f"{message.topic()}: {error.str()}"

    def _check(self) -> None:
        if self._failed is not None:
            raise LogError(f"a record was refused: {self._failed}")


def produce(
    producer: Producer,
    topic: str,
    value: bytes | None,
    key: bytes | None,
    headers: Any,
    on_delivery: Callable[[KafkaError | None, Message], None] | None = None,
) -> None:
    """Queue one record; while the queue is full, serve deliveries and try again."""
    while True:
        try:
            if on_delivery is None:
                producer.produce(topic, value, key, headers=headers)
            else:
                producer.produce(topic, value, key, headers=headers, on_delivery=on_delivery)
            return
        except BufferError:
            producer.poll(0.05)


def _produce_all(producer: Producer, append: Append) -> None:
    """Queue records without the delivery reports that a commit stands for. Arguments by position take a fifth less time than by name."""
    topic, queue = append.topic, producer.produce
    for key, value, headers in zip(append.keys, append.values, append.headers, strict=True):
        try:
            queue(topic, value, key, _ANY_PARTITION, None, None, _NOW, list(headers))
        except BufferError:
            produce(producer, topic, value, key, list(headers))


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
        consumer.assign([_at(tp, start) for tp in sorted(open_parts)])
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


def _at(tp: domain_log.TopicPartition, position: Position) -> TopicPartition:
    return TopicPartition(tp[0], tp[1], position.get(tp, OFFSET_BEGINNING))


def _retrying(call: Callable[[], _T], failure: str) -> _T:
    """Coordinators and leaders come up after the metadata do: try for as long as a broker's restart takes."""
    deadline = time.monotonic() + OPERATION_TIMEOUT_S
    while True:
        try:
            return call()
        except KafkaException as error:
            cause = error.args[0]
            if time.monotonic() > deadline or not (cause.retriable() or cause.code() in _NOT_YET):
                raise LogError(f"{failure}: {error}") from error
            time.sleep(0.2)
