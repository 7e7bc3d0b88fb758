"""Which of several processes of one worker is the active one, as Kafka's consumer group has it: who holds the one partition of `commands`.

A group of its own, for this alone; nothing is read in it. It says who may begin, no more: that an older owner writes nothing after
it stood still is the work of its transactional id, which whoever begins takes over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from threading import Event

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from domain.errors import LogError
from infra.kafka.client import Config
from schema_registry.contracts import COMMANDS

log = structlog.get_logger(__name__)

SESSION_MS = 6_000  # the least that a broker allows as it is delivered: so long after its last sign of life a leader is replaced
FOLLOW_S = 1.0
_POLL_S = 0.2
_PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)  # the client connects again by itself
_FOR_GOOD = (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.FENCED_INSTANCE_ID)


class Leadership:
    """One process's candidature, from its construction to `close`.

    Args:
        instance: with the same number again a process takes its own place back at once, without the others being asked.
    """

    def __init__(self, config: Config, worker: str, instance: int) -> None:
        group = f"tidemark-{worker}-leader"
        self._consumer = Consumer(
            {
                **config,
                "group.id": group,
                "group.instance.id": f"{group}-{instance}",
                "session.timeout.ms": SESSION_MS,
                "heartbeat.interval.ms": SESSION_MS // 4,
                # Who leads goes on leading when another one joins.
                "partition.assignment.strategy": "cooperative-sticky",
                "enable.auto.commit": False,
            }
        )
        self._leads, self._ends = Event(), Event()
        self._group, self._refused = group, ""
        self._consumer.subscribe([COMMANDS], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)
        # In this context, so that what it logs bears the process's name.
        self._thread = threading.Thread(target=copy_context().run, args=(self._watch,), name=f"{worker}-leadership", daemon=True)
        self._thread.start()

    def wait(self, stop: Event, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Wait until this process is the active one.

        Args:
            meanwhile: called again and again while another one is.

        Returns:
            Whether it is; not, when `stop` was set first.

        Raises:
            LogError: the group does not take it, and will not.
        """
        while not self._leads.wait(_POLL_S):
            if self._refused:
                raise LogError(self._refused)
            if stop.wait(FOLLOW_S - _POLL_S):
                return False
            if not self._leads.is_set():
                meanwhile()
        return not stop.is_set()

    def close(self) -> None:
        """Withdraw. Another one begins once the session has run out, if this one has not come back by then."""
        self._ends.set()
        self._thread.join()
        self._consumer.close()

    def _watch(self) -> None:
        # Only so that the group's news come in: without it a leader would count as gone after `max.poll.interval.ms`.
        while not self._ends.is_set():
            try:
                told = self._consumer.poll(_POLL_S)
                error = told.error() if told is not None else None
            except KafkaException as raised:
                error = raised.args[0]
                self._ends.wait(_POLL_S)
            if error is not None and error.code() not in _PASSING:
                log.warning("leadership_unclear", error=error.str())
                if error.fatal() or error.code() in _FOR_GOOD:
                    self._refused = f"the group {self._group}, which says who of several processes works: {error.str()}"

    def _assigned(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        consumer.incremental_assign(parts)
        consumer.pause(parts)
        if parts:
            self._leads.set()
            log.info("leads")

    def _revoked(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        consumer.incremental_unassign(parts)
        if parts:
            self._leads.clear()
        if parts and not self._ends.is_set():
            log.warning("leads_no_more")
