"""More partitions for a topic, so that more workers can share it.

The log says it first (`TopicGrown`), Kafka follows; killed between the two, the same call ends it. Readers take the new partitions in from
their first record: those that need an order merge by `seq`, the others ask for none. Nothing is moved: a key's later records may stand
in another partition than its earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from domain.errors import InvalidValue
from domain.log import NewRecord
from infra.composition import Composition
from schema_registry.contracts import CONTROL_EVENTS, ORDERED_BY_SEQ, PARTITIONS
from schema_registry.record_codec import RecordCodec

MOST = 1_000  # of one topic: past that a cluster's own advice is another log


@dataclass(frozen=True, slots=True)
class TopicSize:
    """Partitions of a topic: those that Kafka has, and those that the log knows."""

    topic: str
    found: int
    known: int

    @property
    def may_grow(self) -> bool:
        """Whether its readers ask for no more order than its records carry."""
        return self.topic in ORDERED_BY_SEQ

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"topic": self.topic, "partitions": self.found, "known": self.known, "may_grow": self.may_grow}


def sizes(composition: Composition) -> list[TopicSize]:
    """Every topic of the contracts that exists.

    Raises:
        LogError: Kafka does not answer.
    """
    known = {**PARTITIONS, **composition.log.grown()}
    found = dict.fromkeys(PARTITIONS, 0)
    for topic, _ in composition.clients.admin.partitions(PARTITIONS):
        found[topic] += 1
    return [TopicSize(topic, count, known[topic]) for topic, count in found.items() if count]


def grow(composition: Composition, topic: str, partitions: int, *, is_dry: bool = False) -> TopicSize:
    """Give a topic this many partitions, or take those in that somebody else has added.

    Returns:
        How it stood before.

    Raises:
        InvalidValue: the topic may not grow, or not to that number.
        LogError: Kafka refuses.
    """
    before = next((size for size in sizes(composition) if size.topic == topic), None)
    if before is None:
        raise InvalidValue("topic", f"expected one of {', '.join(ORDERED_BY_SEQ)}, found {topic[:60]!r}")
    if not before.may_grow:
        raise InvalidValue(
            "topic",
            f"{topic} keeps its {before.known} partitions: the order of its keys is that of its partitions, and a key's later records would"
            f" go to another one. These may grow: {', '.join(ORDERED_BY_SEQ)}",
        )
    if not max(before.found, before.known) <= partitions <= MOST:
        least = max(before.found, before.known)
        raise InvalidValue("partitions", f"expected {least} (what {topic} has, none can be taken away) to {MOST}, found {partitions}")
    if is_dry:
        return before
    if before.known < partitions:
        record = {"topic": topic, "partitions": partitions, "replaced": before.known, "known_at": datetime.now(UTC)}
        value = RecordCodec(composition.clients.catalog).encode("TopicGrown", record)
        composition.producer.append([NewRecord(CONTROL_EVENTS, topic.encode(), value)])
    if before.found < partitions:
        composition.clients.admin.grow(topic, partitions)
    return before
