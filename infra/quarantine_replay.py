"""Gives quarantined records back to whoever could not take them: exactly once, wherever this process may die.

A record that a sink had set aside lies before the sink's checkpoint. It is applied with a checkpoint of its own, in the transaction
of its effects: a second attempt finds that one taken and knows that the record is there. Where a reader takes the records of a key in
order, they are given back in order of offset, and the first that fails keeps those behind it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from domain.errors import TidemarkError
from domain.log import NewRecord, Position
from infra.composition import Composition
from infra.read_models import set_aside_by
from projections.decoding import decode
from projections.errors import StalePosition, StoreUnavailable
from projections.protocol import EventBatch, Projection
from projections.quarantine import (
    APPLIED,
    WAITS_FOR_KEY,
    QuarantineEntry,
    QuarantineKey,
    dropped_record,
    replay_place,
    replayed_places,
    replayed_record,
)
from projections.records import RecordBatch
from projections.wallet_graph import PROJECTION as GRAPH
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import COMMANDS
from schema_registry.record_codec import RecordCodec

FROM_FILE = "file:"
COMMAND_HANDLER = "command-handler"
MAX_OUTCOME = 400  # characters of a reason that are kept

LAST_ONE_WINS = frozenset(
    {
        "WalletDescribed", "WalletLabelled", "WalletFrozen", "WalletReleased", "WalletEmbedded",
        "CaseOpened", "CaseAssigned", "VerdictReached", "CaseClosed",
    }
)  # fmt: skip
"""Event types of which the graph keeps the latest only: an old one may not be applied over a newer one."""
_ReaderKey = tuple[str, str, int, bytes]
"""(projection, topic, partition, record key): what a reader takes in order."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one entry: `outcome` is `applied`, or why not."""

    entry: QuarantineEntry
    outcome: str

    @property
    def is_applied(self) -> bool:
        """Whether the entry is closed now."""
        return self.outcome == APPLIED

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        projection, topic, partition, offset = self.entry.key
        return {
            "projection": projection,
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "outcome": self.outcome,
        }


def replay(
    composition: Composition,
    entries: Iterable[QuarantineEntry],
    actor: str,
    progress: Callable[[Replayed], None] = lambda replayed: None,
) -> list[Replayed]:
    """Replay entries one by one, each reader's in order of the log, and record each outcome in the quarantine topic.

    Args:
        actor: who asked for it.

    Raises:
        StoreUnavailable: a store does not answer; what was replayed before stays so.
        LogError: Kafka does not answer.
    """
    codec = RecordCodec(composition.clients.catalog)
    sinks: dict[str, Projection] = {}
    found: list[Replayed] = []
    standing = composition.log.quarantine()
    left = sorted(entries, key=lambda entry: entry.key)
    tried: set[QuarantineKey] = set()
    while left:
        ahead: dict[_ReaderKey, set[int]] = {}
        for other in standing.values():
            if (name := _reader_key(composition, other, sinks)) is not None:
                ahead.setdefault(name, set()).add(other.record.offset)
        done: set[_ReaderKey] = set()
        for entry in left:
            tried.add(entry.key)
            name = _reader_key(composition, entry, sinks)
            offsets = ahead.get(name, set()) if name is not None else set()
            first = min(offsets, default=entry.record.offset)
            if first < entry.record.offset:
                outcome = f"{WAITS_FOR_KEY}: {entry.record.topic}/{entry.record.partition}/{first} of the same key stands before it"
            else:
                outcome = _give_back(composition, entry, sinks, standing)[:MAX_OUTCOME]
            replayed = Replayed(entry, outcome)
            composition.producer.append([replayed_record(codec, entry.key, replayed.outcome, actor, datetime.now(UTC))])
            if replayed.is_applied:
                standing.pop(entry.key, None)
                offsets.discard(entry.record.offset)
                if name is not None and not offsets:
                    done.add(name)
            found.append(replayed)
            progress(replayed)
        # What came to wait behind these while they were given back: else it would wait for nothing.
        standing = composition.log.quarantine() if done else {}
        fresh = (entry for key, entry in sorted(standing.items()) if key not in tried)
        left = [entry for entry in fresh if entry.reason == WAITS_FOR_KEY and _reader_key(composition, entry, sinks) in done]
    return found


def give_up(composition: Composition, entries: Iterable[QuarantineEntry], why: str, actor: str) -> list[QuarantineEntry]:
    """Close entries for good: their readers never take them, and `verify` counts them as dropped. Nothing is deleted.

    Returns:
        The entries that were still open, and are dropped now.

    Raises:
        LogError: Kafka does not answer.
    """
    codec = RecordCodec(composition.clients.catalog)
    standing = composition.log.quarantine()
    found = [entry for entry in entries if entry.key in standing]
    now = datetime.now(UTC)
    composition.producer.append([dropped_record(codec, entry.key, why, actor, now) for entry in found])
    return found


def place_of(entry: QuarantineEntry) -> str:
    """Where an entry's record stands, as text."""
    return f"{entry.record.topic}/{entry.record.partition}/{entry.record.offset}"


def waiting_behind(entries: Iterable[QuarantineEntry], first: QuarantineEntry) -> list[QuarantineEntry]:
    """The entries that wait for the key of another."""
    key = (first.projection, first.record.topic, first.record.partition, first.record.key)
    return [
        entry for entry in entries
        if entry.reason == WAITS_FOR_KEY and entry.record.offset > first.record.offset
        and (entry.projection, entry.record.topic, entry.record.partition, entry.record.key) == key
    ]  # fmt: skip


class PayloadChanged(TidemarkError):
    """The value of an entry is not what was put into quarantine, or is gone."""


def with_payload(composition: Composition, entry: QuarantineEntry) -> QuarantineEntry:
    """The entry with its value, read back from the object store where it is kept there.

    Raises:
        PayloadChanged: the object is gone, or its hash is another.
        StoreUnavailable: the object store does not answer.
    """
    stored = entry.stored
    if stored is None:
        return entry
    payload = composition.payloads.get(stored.uri)
    if payload is None:
        raise PayloadChanged(f"payload_gone: {stored.uri} holds nothing; the record still stands in the log at {place_of(entry)}")
    digest = hashlib.sha256(payload).hexdigest()
    if digest != stored.sha256:
        raise PayloadChanged(f"payload_changed: {stored.uri}: expected SHA-256 {stored.sha256}, found {digest}")
    return replace(entry, record=replace(entry.record, value=payload), stored=None)


def _sink(composition: Composition, name: str, sinks: dict[str, Projection]) -> Projection | None:
    model = set_aside_by(name)
    if model is None:
        return None
    if name not in sinks:
        sinks[name] = composition.store(model.name)
    return sinks[name]


def _reader_key(composition: Composition, entry: QuarantineEntry, sinks: dict[str, Projection]) -> _ReaderKey | None:
    """Whose order the entry belongs to, none where its reader promises none."""
    record = entry.record
    ordered: frozenset[str] = getattr(_sink(composition, entry.projection, sinks), "key_ordered", frozenset())
    if record.key is None or record.topic not in ordered:
        return None
    return (entry.projection, record.topic, record.partition, record.key)


def _give_back(
    composition: Composition,
    entry: QuarantineEntry,
    sinks: dict[str, Projection],
    standing: dict[QuarantineKey, QuarantineEntry] | None = None,
) -> str:
    if entry.record.topic.startswith(FROM_FILE):
        return "a row of a file: correct the file or its mapping and ingest it again, rows that were recorded stay recorded once"
    sink = _sink(composition, entry.projection, sinks)
    if entry.projection == COMMAND_HANDLER or sink is not None:
        try:
            entry = with_payload(composition, entry)
        except PayloadChanged as error:
            return str(error)
        return _send_again(composition, entry) if sink is None else _apply(composition, sink, entry, standing or {})
    return f"{entry.projection} keeps one order that has passed this record: it cannot take it any more"


def _send_again(composition: Composition, entry: QuarantineEntry) -> str:
    """A command goes to the end of the command topic; a transaction that was recorded meanwhile is a duplicate there."""
    try:
        RecordCodec(composition.clients.catalog).decode(entry.record.value)
    except TidemarkError as error:
        return f"still no command: {error}"
    composition.producer.append([NewRecord(COMMANDS, entry.record.key, entry.record.value, entry.record.headers)])
    return APPLIED


def _apply(composition: Composition, sink: Projection, entry: QuarantineEntry, standing: dict[QuarantineKey, QuarantineEntry]) -> str:
    record = entry.record
    events, rejections = decode(ColumnCodec(composition.clients.catalog, sink.reads), [as_batch(entry)])
    rejections += sink.screen(events)
    if rejections:
        return f"{rejections[0].reason}: {rejections[0].message}"
    position = sink.load_position()  # makes what is missing
    if sink.name == GRAPH and (newer := _newer(composition, events, entry, standing, position)) is not None:
        return f"{newer} is newer and stands in the graph: run `tidemark rebuild graph`, which applies both in their order"
    try:
        sink.apply(events, {}, {replay_place(record.topic, record.partition, record.offset): 1})
    except StalePosition:
        return APPLIED  # an earlier replay got this far and no further
    except StoreUnavailable:
        raise
    except TidemarkError as error:
        return f"refused_by_store: {error}"
    return APPLIED


def _newer(
    composition: Composition,
    events: EventBatch,
    entry: QuarantineEntry,
    standing: dict[QuarantineKey, QuarantineEntry],
    position: Position,
) -> str | None:
    """Where a later record of the same key stands that the graph has taken, if only the latest of its kind is kept."""
    if not LAST_ONE_WINS & {name for name, table in events.tables.items() if table.num_rows}:
        return None
    record = entry.record
    tp = (record.topic, record.partition)
    end = min(position.get(tp, 0), composition.log.ends([record.topic]).get(tp, 0))
    given_back = set(replayed_places(position))
    if (*tp, record.offset) in given_back:
        return None
    dropped = composition.log.quarantine_state().dropped
    for batch in composition.log.read([record.topic], {tp: record.offset + 1}, {tp: end}):
        for key, offset in zip(batch.keys, batch.offsets.tolist(), strict=True):
            name = (entry.projection, *tp, offset)
            if key == record.key and name not in standing and name not in dropped:
                return f"{record.topic}-{record.partition}@{offset}"
    return None


def as_batch(entry: QuarantineEntry) -> RecordBatch:
    """The quarantined record as it was received."""
    record = entry.record
    return RecordBatch(
        record.topic,
        np.array([record.partition], np.int32),
        np.array([record.offset], np.int64),
        np.array([record.timestamp_ms], np.int64),
        [record.key],
        [record.value],
        [record.headers],
    )


def preview(payload: bytes | None, most: int | None = 64) -> str:
    """A payload for people: hexadecimal, sixteen bytes a line, with its printable characters beside.

    Args:
        most: bytes to show, all when none is given.
    """
    if payload is None:
        return "(no value)"
    shown = payload if most is None else payload[:most]
    lines = []
    for at in range(0, len(shown), 16):
        part = shown[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:08x}  {part.hex(' '):<47}  {text}")
    if len(shown) < len(payload):
        lines.append(f"… {len(payload) - len(shown)} more bytes")
    return "\n".join(lines) or "(empty)"


def masked(entry: QuarantineEntry, is_full: bool = False) -> dict[str, Any]:
    """An entry as plain values; without `is_full` of the payload only its size and hash, for it may hold anything."""
    record = entry.record
    payload = record.value or b""
    size, digest = len(payload), hashlib.sha256(payload).hexdigest()
    if entry.stored is not None:
        size, digest = entry.stored.size, entry.stored.sha256
    return {
        "projection": entry.projection, "topic": record.topic, "partition": record.partition, "offset": record.offset,
        "reason": entry.reason, "message": entry.message, "attempt": entry.attempt,
        "source_time": datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).isoformat(),
        "set_aside_at": datetime.fromtimestamp(entry.set_aside_ms / 1000, UTC).isoformat(),
        "key": json.dumps((record.key or b"").decode("utf-8", "backslashreplace"))[1:-1], "payload_bytes": size,
        "payload_sha256": digest, "payload_uri": entry.stored.uri if entry.stored else None,
        "payload_hex": payload.hex() if is_full else None, "is_whole": is_full and entry.stored is None,
    }  # fmt: skip
