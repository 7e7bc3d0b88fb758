"""What every client of Kafka shares: options, patience, and the error of a cluster that says nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from domain.errors import LogError

Config = Mapping[str, Any]
_T = TypeVar("_T")
EVENT_BYTES = 16 << 20  # of one record: a command of the broker's own limit of 1 MiB must fit into quarantine whole
REFRESH_MS = 5_000  # how soon new partitions of a topic are met
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
    "topic.metadata.refresh.interval.ms": REFRESH_MS,
}
LINGER_MS = 5
WRITE_OPTIONS: Config = {
    "topic.metadata.refresh.interval.ms": REFRESH_MS,
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": LINGER_MS,
    "message.max.bytes": EVENT_BYTES,
    "batch.size": 900_000,  # many small records together stay below the command topic's limit
    "batch.num.messages": 20_000,
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 262_144,
}
_NOT_YET = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)  # a topic that was made a moment ago
OPERATION_TIMEOUT_S = 30.0  # longer than a broker's restart
DRAIN_S = 0.005  # how long a poll gathers after its first record: latency paid for fewer, larger batches


class Unanswered(LogError):
    """Kafka does not answer."""


def retrying(call: Callable[[], _T], failure: str) -> _T:
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
