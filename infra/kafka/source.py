"""Where the runner gets its records: a group that shares partitions, or one reader of all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from confluent_kafka import TopicPartition

from domain import log as domain_log
from domain.log import Position
from infra.column_consumer import ColumnConsumer
from infra.kafka.client import DRAIN_S, OPERATION_TIMEOUT_S, READ_OPTIONS, Config, Unanswered
from infra.kafka.reading import consumer_place
from projections.records import RecordBatch
from schema_registry.contracts import TRANSACTION_EVENTS

SESSION_MS = 10_000  # so long after its last sign of life a worker's partitions go to the others
LOOK_TIMEOUT_S = 1.0
LOOK_S = 5.0  # how often who reads every partition looks for new ones


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
            self._consumer.assign([consumer_place(tp, position) for tp in sorted(self._taken)])
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
        self._consumer.incremental_assign([consumer_place(tp, position) for tp in sorted(fresh)])
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
