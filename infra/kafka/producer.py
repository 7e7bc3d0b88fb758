"""Appending without a transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from domain.errors import LogError
from domain.log import Headers, NewRecord
from infra.kafka.client import LINGER_MS, OPERATION_TIMEOUT_S, WRITE_OPTIONS, Config


class PlainProducer:
    """Appends without a transaction, acknowledged by all replicas: for commands and for quarantine.

    Args:
        linger_ms: how long a record waits for company; 0 where one record's own time counts.
    """

    def __init__(self, config: Config, linger_ms: int = LINGER_MS) -> None:
        self._producer = Producer({**config, **WRITE_OPTIONS, "linger.ms": linger_ms})
        self._failed: str | None = None

    def send(
        self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None], headers: Sequence[Headers] | None = None
    ) -> None:
        """Queue records; `flush` waits for them. Waits while the queue is full.

        Raises:
            LogError: an earlier record was refused.
        """
        for key, value, own in zip(keys, values, headers or [()] * len(values), strict=True):
            produce(self._producer, topic, value, key, list(own) or None, self._delivered)
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


class TrackedProducer:
    """Appends and tells of each record whether it is durable: for who answers for single records.

    Args:
        timeout_s: how long a record may take at most.
    """

    def __init__(self, config: Config, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._producer = Producer({**config, **WRITE_OPTIONS, "delivery.timeout.ms": round(timeout_s * 1000)})

    def append(self, records: Sequence[NewRecord]) -> dict[int, str]:
        """Append and wait; returns why records are not durable, by their place; empty when all are.

        What is not durable in time is given up: it is not sent later.
        """
        failed = dict.fromkeys(range(len(records)), f"not acknowledged in {self._timeout_s:.0f} s")

        def delivered(at: int) -> Callable[[KafkaError | None, Message], None]:
            def note(error: KafkaError | None, message: Message) -> None:
                if error is None:
                    failed.pop(at, None)
                else:
                    failed[at] = error.str()

            return note

        for at, record in enumerate(records):
            produce(self._producer, record.topic, record.value, record.key, list(record.headers), delivered(at))
        if self._producer.flush(self._timeout_s + 1.0):
            self._producer.purge()
            self._producer.flush(1.0)
        return failed
