"""Quarantine: where a record goes that cannot be applied, whole, with its coordinates and the reason.

It is a topic like any other. An entry is open until a `QuarantineReplayed` with outcome `applied` names it; the same record put
twice (after a crash) is one entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from domain.log import NewRecord, Record
from projections.protocol import Rejection
from projections.records import RecordBatch
from schema_registry.contracts import QUARANTINE_EVENTS
from schema_registry.record_codec import RecordCodec

QuarantineKey = tuple[str, str, int, int]
"""(projection, topic, partition, offset)."""

APPLIED = "applied"


class QuarantineLog(Protocol):
    """Where quarantined records are appended; `append` returns after they are durable."""

    def append(self, records: list[NewRecord]) -> None: ...


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """A record in quarantine, as last put there."""

    projection: str
    record: Record
    reason: str
    message: str
    attempt: int

    @property
    def key(self) -> QuarantineKey:
        return (self.projection, self.record.topic, self.record.partition, self.record.offset)


def quarantine_records(
    codec: RecordCodec, projection: str, batches: Iterable[RecordBatch], rejections: Iterable[Rejection], attempt: int = 1
) -> list[NewRecord]:
    """`RecordQuarantined` for each rejection, with the whole record found in `batches`."""
    reasons = {(r.topic, r.partition, r.offset): r for r in rejections}
    found = []
    for batch in batches:
        for index, place in enumerate(zip(batch.partitions.tolist(), batch.offsets.tolist(), strict=True)):
            rejection = reasons.get((batch.topic, *place))
            if rejection is not None:
                entry = QuarantineEntry(projection, batch.record(index), rejection.reason, rejection.message, attempt)
                found.append(as_record(codec, entry))
    return found


def as_record(codec: RecordCodec, entry: QuarantineEntry) -> NewRecord:
    """The entry as a record of the quarantine topic, keyed so that all attempts of one record share a partition."""
    record = entry.record
    value: dict[str, Any] = {
        "projection": entry.projection,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "key": record.key,
        "payload": record.value,
        "headers": [{"name": name, "value": content} for name, content in record.headers],
        "reason": entry.reason,
        "message": entry.message[:1000],
        "attempt": entry.attempt,
        "source_timestamp_ms": record.timestamp_ms,
    }
    return NewRecord(QUARANTINE_EVENTS, _key(entry.key), codec.encode("RecordQuarantined", value))


def replayed_record(codec: RecordCodec, key: QuarantineKey, outcome: str, actor: str, known_at: Any) -> NewRecord:
    """`QuarantineReplayed` for an entry."""
    projection, topic, partition, offset = key
    value = {
        "projection": projection, "topic": topic, "partition": partition, "offset": offset,
        "outcome": outcome, "actor": actor, "known_at": known_at,
    }  # fmt: skip
    return NewRecord(QUARANTINE_EVENTS, _key(key), codec.encode("QuarantineReplayed", value))


def open_entries(events: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[QuarantineKey, QuarantineEntry]:
    """The entries still open after (event type, record) pairs of the quarantine topic, in order within a key."""
    entries: dict[QuarantineKey, QuarantineEntry] = {}
    for name, value in events:
        key = (value["projection"], value["topic"], value["partition"], value["offset"])
        if name == "QuarantineReplayed":
            if value["outcome"] == APPLIED:
                entries.pop(key, None)
            continue
        record = Record(
            value["topic"],
            value["partition"],
            value["offset"],
            value["source_timestamp_ms"],
            value["key"],
            value["payload"],
            tuple((header["name"], header["value"]) for header in value["headers"]),
        )
        entries[key] = QuarantineEntry(value["projection"], record, value["reason"], value["message"], value["attempt"])
    return entries


def decoded(codec: RecordCodec, records: Iterable[Record]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(event type, record) of each record of the quarantine topic. Only this code writes there, so a failure is corruption."""
    for record in records:
        yield codec.decode(record.value)


def _key(key: QuarantineKey) -> bytes:
    return "/".join(map(str, key)).encode()
