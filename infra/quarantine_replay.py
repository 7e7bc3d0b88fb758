"""Gives quarantined records back to whoever could not take them: exactly once, wherever this process may die.

A record that a sink had set aside lies before the sink's checkpoint. It is applied with a checkpoint of its own, in the transaction
of its effects: a second attempt finds that one taken and knows that the record is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from domain.errors import TidemarkError
from domain.log import NewRecord
from infra.composition import Composition
from projections.decoding import decode
from projections.errors import StalePosition, StoreUnavailable
from projections.protocol import EventBatch, Projection
from projections.quarantine import APPLIED, QuarantineEntry, replayed_record
from projections.records import RecordBatch
from projections.wallet_graph import PROJECTION as GRAPH
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import COMMANDS
from schema_registry.record_codec import RecordCodec

FROM_FILE = "file:"
CURATED = "curated"
WAREHOUSE = "warehouse"
COMMAND_HANDLER = "command-handler"
MAX_OUTCOME = 400  # characters of a reason that are kept

LAST_ONE_WINS = frozenset(
    {
        "WalletDescribed", "WalletLabelled", "WalletFrozen", "WalletReleased", "WalletEmbedded",
        "CaseOpened", "CaseAssigned", "VerdictReached", "CaseClosed",
    }
)  # fmt: skip
"""Event types of which the graph keeps the latest only: an old one may not be applied over a newer one."""


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
    """Replay entries one by one and record each outcome in the quarantine topic.

    Args:
        actor: who asked for it.

    Raises:
        StoreUnavailable: a store does not answer; what was replayed before stays so.
        LogError: Kafka does not answer.
    """
    codec = RecordCodec(composition.clients.catalog)
    sinks: dict[str, Projection] = {}
    found = []
    for entry in entries:
        replayed = Replayed(entry, _give_back(composition, entry, sinks)[:MAX_OUTCOME])
        composition.producer.append([replayed_record(codec, entry.key, replayed.outcome, actor, datetime.now(UTC))])
        found.append(replayed)
        progress(replayed)
    return found


def _give_back(composition: Composition, entry: QuarantineEntry, sinks: dict[str, Projection]) -> str:
    if entry.record.topic.startswith(FROM_FILE):
        return "a row of a file: correct the file or its mapping and ingest it again, rows that were recorded stay recorded once"
    if entry.projection == COMMAND_HANDLER:
        return _send_again(composition, entry)
    if entry.projection in (CURATED, WAREHOUSE, GRAPH):
        if entry.projection not in sinks:
            sinks[entry.projection] = composition.graph() if entry.projection == GRAPH else getattr(composition, entry.projection)()
        return _apply(composition, sinks[entry.projection], entry)
    return f"{entry.projection} keeps one order that has passed this record: it cannot take it any more"


def _send_again(composition: Composition, entry: QuarantineEntry) -> str:
    """A command goes to the end of the command topic; a transaction that was recorded meanwhile is a duplicate there."""
    try:
        RecordCodec(composition.clients.catalog).decode(entry.record.value)
    except TidemarkError as error:
        return f"still no command: {error}"
    composition.producer.append([NewRecord(COMMANDS, entry.record.key, entry.record.value, entry.record.headers)])
    return APPLIED


def _apply(composition: Composition, sink: Projection, entry: QuarantineEntry) -> str:
    record = entry.record
    events, rejections = decode(ColumnCodec(composition.clients.catalog, sink.reads), [as_batch(entry)])
    rejections += sink.screen(events)
    if rejections:
        return f"{rejections[0].reason}: {rejections[0].message}"
    if sink.name == GRAPH and (newer := _newer(composition, events, entry)) is not None:
        return f"{newer} is newer and stands in the graph: run `tidemark rebuild graph`, which applies both in their order"
    place = (f"replay/{record.topic}/{record.partition}/{record.offset}", 0)
    try:
        sink.load_position()  # makes what is missing
        sink.apply(events, {}, {place: 1})
    except StalePosition:
        return APPLIED  # an earlier replay got this far and no further
    except StoreUnavailable:
        raise
    except TidemarkError as error:
        return f"refused_by_store: {error}"
    return APPLIED


def _newer(composition: Composition, events: EventBatch, entry: QuarantineEntry) -> str | None:
    """Where a later record of the same key stands, if the event is of a kind of which only the latest is kept."""
    if not LAST_ONE_WINS & {name for name, table in events.tables.items() if table.num_rows}:
        return None
    record = entry.record
    tp = (record.topic, record.partition)
    end = composition.log.ends([record.topic]).get(tp, 0)
    for batch in composition.log.read([record.topic], {tp: record.offset + 1}, {tp: end}):
        for key, offset in zip(batch.keys, batch.offsets.tolist(), strict=True):
            if key == record.key:
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
    """An entry as plain values; without `is_full` the payload's first bytes only, for it may hold anything."""
    record = entry.record
    payload = record.value or b""
    return {
        "projection": entry.projection, "topic": record.topic, "partition": record.partition, "offset": record.offset,
        "reason": entry.reason, "message": entry.message, "attempt": entry.attempt,
        "source_time": datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).isoformat(),
        "key": json.dumps((record.key or b"").decode("utf-8", "backslashreplace"))[1:-1], "payload_bytes": len(payload),
        "payload_hex": (payload if is_full else payload[:64]).hex(), "is_whole": is_full or len(payload) <= 64,
    }  # fmt: skip
