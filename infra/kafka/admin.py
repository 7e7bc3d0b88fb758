"""Topics and offsets."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_INVALID, ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from domain import log as domain_log
from domain.errors import LogError
from infra.kafka.client import EVENT_BYTES, OPERATION_TIMEOUT_S, Config, Unanswered, retrying
from schema_registry.contracts import COMMANDS

_PASSING = (KafkaError.UNSTABLE_OFFSET_COMMIT, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR)
SETTLE_S = 0.5  # how long an open transaction is waited for before its records are left out


class TopicAdmin:
    """Topics and offsets. Keeps its AdminClient: calls fail once it is collected."""

    def __init__(self, config: Config) -> None:
        self._config = dict(config)
        self._admin = AdminClient(self._config)

    def create(self, partitions: Mapping[str, int], replication: int = -1, retention_ms: int = -1) -> list[str]:
        """Create the topics that are missing; kept for ever, never compacted.

        Args:
            replication: copies of each record; -1 is the cluster's own default, which whoever runs it has chosen.

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
        """Delete topics of our own making; returns when the cluster has agreed. Those that are gone already need no more.

        Raises:
            LogError: the cluster refuses.
        """
        for topic, future in self._admin.delete_topics(list(topics), operation_timeout=OPERATION_TIMEOUT_S).items():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
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

    def names(self, prefix: str) -> list[str]:
        """The topics whose name begins so."""
        return sorted(topic for topic in self._topics() if topic.startswith(prefix))

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
        return retrying(
            lambda: self._list_offsets(wanted, isolation), f"the offsets of {sorted({part.topic for part in wanted})} cannot be read"
        )

    def _list_offsets(self, wanted: dict[TopicPartition, OffsetSpec], isolation: IsolationLevel) -> dict[domain_log.TopicPartition, int]:
        futures = self._admin.list_offsets(wanted, isolation_level=isolation, request_timeout=OPERATION_TIMEOUT_S)
        return {(part.topic, part.partition): future.result().offset for part, future in futures.items()}
