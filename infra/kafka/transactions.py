"""Appending in a Kafka transaction, and the event log that is made of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from domain import log as domain_log
from domain.errors import Fenced, LogError
from domain.log import NewRecord, Position, Record
from infra.kafka.admin import TopicAdmin
from infra.kafka.client import OPERATION_TIMEOUT_S, WRITE_OPTIONS, Config, retrying
from infra.kafka.producer import produce
from infra.kafka.reading import read_batches
from projections.failpoints import OFFSETS_SENT, PRODUCED, reach
from projections.work import Append

# Without these a transactional producer waits 92 ms for each new partition that it writes to.
_TRANSACTIONAL: Config = {**WRITE_OPTIONS, "linger.ms": 0, "retry.backoff.ms": 5, "retry.backoff.max.ms": 20}
_FENCED = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED, KafkaError.FENCED_INSTANCE_ID)
GIVE_UP_S = 2 * OPERATION_TIMEOUT_S + 5.0  # two calls, each with a limit of its own that it should keep
_ANY_PARTITION, _NOW = -1, 0  # what `Producer.produce` takes for "by the key" and "at this moment"


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
        retrying(lambda: self._producer.init_transactions(OPERATION_TIMEOUT_S), "the transactional producer cannot start")

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
            self._within(lambda: self._finish(position))
        except KafkaException as error:
            raise self._abort(error) from error

    def close(self) -> None:
        """Release the clients."""
        self._member.close()

    def _finish(self, position: Position) -> None:
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in position.items()]
        if offsets:
            self._producer.send_offsets_to_transaction(offsets, self._member.consumer_group_metadata(), OPERATION_TIMEOUT_S)
        reach(OFFSETS_SENT)
        self._producer.commit_transaction(OPERATION_TIMEOUT_S)

    def _within(self, call: Callable[[], object]) -> None:
        """Do what may never come back, and give it up then.

        librdkafka 2.16 forgets the time limit of `send_offsets_to_transaction` where its connection is reset at the wrong moment: it
        waits for ever. A thread in there cannot be ended, and the producer is its own: this process has to go.
        """
        raised: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except BaseException as error:  # it is raised below, where it belongs
                raised.append(error)

        thread = threading.Thread(target=run, name=f"{self._group}-transaction", daemon=True)
        thread.start()
        thread.join(GIVE_UP_S)
        if thread.is_alive():
            raise LogError(f"{self._group}: Kafka's client did not come back from a transaction in {GIVE_UP_S:.0f} s; start again")
        if raised:
            raise raised[0]

    def _abort(self, error: KafkaException) -> LogError:
        cause = error.args[0]
        if cause.code() in _FENCED:
            return Fenced(f"another {self._group} has taken over: this one stops")
        # Whatever it was, an open transaction would hold every reader back and refuse the next one.
        with suppress(KafkaException):
            self._within(lambda: self._producer.abort_transaction(OPERATION_TIMEOUT_S))
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


def _produce_all(producer: Producer, append: Append) -> None:
    """Queue records without the delivery reports that a commit stands for. Arguments by position take a fifth less time than by name."""
    topic, queue = append.topic, producer.produce
    for key, value, headers in zip(append.keys, append.values, append.headers, strict=True):
        try:
            queue(topic, value, key, _ANY_PARTITION, None, None, _NOW, list(headers))
        except BufferError:
            produce(producer, topic, value, key, list(headers))
