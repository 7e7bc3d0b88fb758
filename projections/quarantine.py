"""Quarantine: where a record goes that cannot be applied, whole, with its coordinates and the reason.

It is a topic like any other. An entry is open until a `QuarantineReplayed` with outcome `applied` names it, or a `QuarantineDropped`:
then its reader never takes it, and verification counts it as a named exclusion. The same record put twice (after a crash) is one
entry. A value of more than `INLINE_BYTES` is put into an object store first, create-once under its place and hash, and the entry names
the object and the hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from domain.log import NewRecord, Position, Record, TopicPartition
from schema_registry.contracts import QUARANTINE_EVENTS
from schema_registry.record_codec import RecordCodec

if TYPE_CHECKING:  # a Lambda that sets records aside has no room for what these two bring along
    from projections.protocol import Rejection
    from projections.records import RecordBatch

QuarantineKey = tuple[str, str, int, int]
"""(projection, topic, partition, offset)."""

APPLIED = "applied"
WAITS_FOR_KEY = "waits_for_key"
"""Reason of a record that is well, but whose key has an earlier record in quarantine."""
INLINE_BYTES = 256 << 10
_REPLAY = "replay/"


class QuarantineLog(Protocol):
    """Where quarantined records are appended; `append` returns after they are durable."""

    def append(self, records: list[NewRecord]) -> None: ...


class PayloadStore(Protocol):
    """Keeps values that are too large for the quarantine topic."""

    def put(self, name: str, payload: bytes) -> str:
        """Keep a value under a name that no other value ever has; returns its address once it is durable.

        Raises:
            StoreUnavailable: the store refuses or does not answer.
        """

    def get(self, uri: str) -> bytes | None:
        """The value at an address, none where there is nothing.

        Raises:
            StoreUnavailable: the store refuses or does not answer.
        """


@dataclass(frozen=True, slots=True)
class StoredPayload:
    """Where a large value is kept, what it must hash to (hexadecimal), and its length in bytes."""

    uri: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """A record in quarantine, as last put there.

    `stored` is set where the value is kept elsewhere; the record's own value is then none. `set_aside_ms` is when Kafka appended the
    entry, in milliseconds since 1970.
    """

    projection: str
    record: Record
    reason: str
    message: str
    attempt: int
    stored: StoredPayload | None = None
    set_aside_ms: int = field(default=0, compare=False)

    @property
    def key(self) -> QuarantineKey:
        return (self.projection, self.record.topic, self.record.partition, self.record.offset)


@dataclass(slots=True)
class Quarantine:
    """What the quarantine topic says: the open entries, and the records that were given up."""

    entries: dict[QuarantineKey, QuarantineEntry] = field(default_factory=dict)
    dropped: set[QuarantineKey] = field(default_factory=set)


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
        "payload_uri": entry.stored.uri if entry.stored else None,
        "payload_sha256": entry.stored.sha256 if entry.stored else None,
        "payload_bytes": entry.stored.size if entry.stored else None,
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


def dropped_record(codec: RecordCodec, key: QuarantineKey, reason: str, actor: str, known_at: Any) -> NewRecord:
    """`QuarantineDropped` for an entry."""
    projection, topic, partition, offset = key
    value = {
        "projection": projection, "topic": topic, "partition": partition, "offset": offset,
        "reason": reason, "actor": actor, "known_at": known_at,
    }  # fmt: skip
    return NewRecord(QUARANTINE_EVENTS, _key(key), codec.encode("QuarantineDropped", value))


def offloaded(codec: RecordCodec, records: Sequence[NewRecord], store: PayloadStore) -> list[NewRecord]:
    """The same records, with large values put into `store` first: durable there before anything names them.

    Raises:
        StoreUnavailable: the store refuses or does not answer; nothing may be appended then.
    """
    found = []
    for record in records:
        if record.topic == QUARANTINE_EVENTS and len(record.value or b"") > INLINE_BYTES:
            name, value = codec.decode(record.value)
            payload = value.get("payload")
            if name == "RecordQuarantined" and payload is not None and len(payload) > INLINE_BYTES:
                digest = hashlib.sha256(payload).hexdigest()
                place = "/".join(str(value[part]) for part in ("projection", "topic", "partition", "offset"))
                value["payload_uri"] = store.put(f"{place}/{digest}", payload)
                value["payload"], value["payload_sha256"], value["payload_bytes"] = None, digest, len(payload)
                record = NewRecord(record.topic, record.key, codec.encode(name, value), record.headers)
        found.append(record)
    return found


def place_in(value: Mapping[str, Any]) -> QuarantineKey:
    """The entry that an event of the quarantine topic is about."""
    return (value["projection"], value["topic"], value["partition"], value["offset"])


def is_closed(name: str, value: Mapping[str, Any]) -> bool:
    """Whether an event of the quarantine topic closes its entry."""
    return name == "QuarantineDropped" or (name == "QuarantineReplayed" and value["outcome"] == APPLIED)


def state_of(events: Iterable[tuple[str, Mapping[str, Any], int]]) -> Quarantine:
    """The state after (event type, record, time appended) of the quarantine topic, in order within a key."""
    found = Quarantine()
    for name, value, at in events:
        key = place_in(value)
        if name == "QuarantineDropped":
            if found.entries.pop(key, None) is not None:
                found.dropped.add(key)
            continue
        if name == "QuarantineReplayed":
            if value["outcome"] == APPLIED:  # the store has it, whatever anyone decided meanwhile
                found.entries.pop(key, None)
                found.dropped.discard(key)
            continue
        found.dropped.discard(key)
        found.entries[key] = _entry(value, at)
    return found


def decoded(codec: RecordCodec, records: Iterable[Record]) -> Iterator[tuple[str, Mapping[str, Any], int]]:
    """(event type, record, time appended) of each record of the quarantine topic. Only this code writes there: a failure is corruption."""
    for record in records:
        name, value = codec.decode(record.value)
        yield name, value, record.timestamp_ms


def replay_place(topic: str, partition: int, offset: int) -> TopicPartition:
    """The checkpoint of its own that a store keeps for a record that was given back to it, in the transaction of its effects."""
    return (f"{_REPLAY}{topic}/{partition}/{offset}", 0)


def replayed_places(position: Position) -> Iterator[tuple[str, int, int]]:
    """The (topic, partition, offset) of each record that was given back to the store with this position."""
    for topic, _ in position:
        if topic.startswith(_REPLAY):
            name, partition, offset = topic.removeprefix(_REPLAY).rsplit("/", 2)
            yield name, int(partition), int(offset)


def _entry(value: Mapping[str, Any], at: int) -> QuarantineEntry:
    record = Record(
        value["topic"],
        value["partition"],
        value["offset"],
        value["source_timestamp_ms"],
        value["key"],
        value["payload"],
        tuple((header["name"], header["value"]) for header in value["headers"]),
    )
    uri = value.get("payload_uri")  # version 1 has none
    stored = StoredPayload(uri, value["payload_sha256"], value["payload_bytes"]) if uri is not None else None
    return QuarantineEntry(value["projection"], record, value["reason"], value["message"], value["attempt"], stored, at)


def _key(key: QuarantineKey) -> bytes:
    return "/".join(map(str, key)).encode()
