"""A range of a reactor's effects performed again, because a person asked: with the ids of the first time, so that receivers know them.

A rebuild never runs a reactor; this is the one way to send again. The live worker goes on: its position stays where it is, what its
ledger has marked stays marked, and what was never sent of the range is marked too. A note says how far a run came: killed, it goes on.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from domain.errors import InvalidValue, TidemarkError
from domain.log import Position, TopicPartition
from infra.composition import Composition
from infra.rebuild_notes import plain, position_of
from projections.decoding import decode
from projections.records import RecordBatch
from projections.work import Effect, perform
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import CASE_EVENTS

REACTORS: tuple[str, ...] = ("notifier",)
"""Reactors by name. Installed packages add projections only, which cause no effects."""
SLICE_RECORDS = 100  # between two notes, about a second of sending: a killed run sends at most these once more than was asked
RESUMES_WITHIN = timedelta(days=1)  # whoever asks for the same range later means all of it: receivers may have lost it again since
FILE = "resend.json"

Progress = Callable[[int, int], None]
"""Told offsets done and offsets in all."""


class ResendRefused(TidemarkError):
    """Another one is sending."""


@dataclass(slots=True)
class ResendResult:
    """What was or would be done in [`start`, `end`), by partition.

    `effects` were performed, `first_time` of them were never sent before; `unreadable` records cannot be decoded, which the live worker
    sets aside. Where it is stopped, running it again goes on.
    """

    name: str
    start: Position
    end: Position
    records: int = 0
    effects: int = 0
    first_time: int = 0
    unreadable: int = 0
    was_resumed: bool = False
    is_stopped: bool = False
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        found = {**asdict(self), "start": plain(self.start), "end": plain(self.end)}
        return {**found, "sent_before": self.effects - self.first_time, "seconds": round(self.seconds, 2)}


def position_of_seq(composition: Composition, seq: int) -> Position:
    """The place of the first alert on the transaction `seq` or a later one, in each partition; the end where there is none.

    Raises:
        HistoryIncomplete: alerts before it may be neither in Kafka nor in the archive.
    """
    found = dict(composition.log.ends([CASE_EVENTS]))
    codec = ColumnCodec(composition.clients.catalog, {"AlertRaised": ("tx_seq",)})
    for batch in composition.log.read([CASE_EVENTS], {}, dict(found)):
        decoded = codec.decode(batch.values).tables.get("AlertRaised")
        if decoded is None:
            continue
        places = decoded.indexes[decoded.table["tx_seq"].to_numpy() >= seq]
        for tp, offset in batch.take(places).first_offsets().items():
            found[tp] = min(found[tp], offset)
    return found


def plan(composition: Composition, name: str, start: Position, end: Position | None = None) -> ResendResult:
    """What `resend` would do, by the log and the ledger as they are. Changes nothing.

    Raises:
        as `resend`.
    """
    result, reached = _begun(composition, name, start, end, _Note.read(composition.ledger_file(name).with_name(FILE)))
    ledger = composition.ledger(name) if composition.ledger_file(name).exists() else None
    met: set[str] = set()
    for _, effects in _slices(composition, result, reached):
        for effect in effects:
            is_known = effect.effect_id in met or (ledger is not None and ledger.was_sent(effect.effect_id))
            result.first_time += not is_known
            result.effects += 1
            met.add(effect.effect_id)
    return result


def resend(
    composition: Composition,
    name: str,
    start: Position,
    end: Position | None = None,
    *,
    progress: Progress = lambda done, total: None,
    stopped: Callable[[], bool] = lambda: False,
) -> ResendResult:
    """Perform every effect of the records from `start` to `end` again, whether or not the ledger has it, and mark those it has not.

    Args:
        start: the first offset of each partition; absent is its first record.
        end: the offset after the last; a partition that is absent is left out. By default, and at most, the log's end as it is now.
        stopped: asked between two slices.

    Raises:
        InvalidValue: a position names what is no place of the reactor's topics.
        ResendRefused: another one is sending.
        HistoryIncomplete: records of the range are neither in Kafka nor in the archive. Nothing was sent.
        StoreUnavailable: the other side, or the ledger, does not answer; run it again.
        LogError: Kafka does not answer.
    """
    began = time.monotonic()
    ledger = composition.ledger(name)
    file = composition.ledger_file(name).with_name(FILE)
    with _alone(file, name):
        note = _Note.read(file)
        result, reached = _begun(composition, name, start, end, note)
        if not result.was_resumed:
            note = _Note(file, dict(result.start), None if end is None else dict(result.end), dict(result.end))
        total = sum(offset - result.start.get(tp, 0) for tp, offset in result.end.items())
        done = sum(offset - result.start.get(tp, 0) for tp, offset in reached.items())
        progress(done, total)
        for batch, effects in _slices(composition, result, reached):
            if stopped():
                result.is_stopped = True
                break
            for effect in effects:
                result.first_time += not ledger.was_sent(effect.effect_id)
                perform(effect, ledger)
                result.effects += 1
            for tp, offset in batch.next_offsets().items():
                done += offset - reached.get(tp, result.start.get(tp, 0))
                reached[tp] = offset
            note.reached = reached
            note.write()
            progress(done, total)
        else:
            note.forget()
    result.seconds = time.monotonic() - began
    return result


def _begun(
    composition: Composition, name: str, start: Position, end: Position | None, note: _Note
) -> tuple[ResendResult, dict[TopicPartition, int]]:
    """The range, and where in it to begin: behind what an interrupted run of the same range has done."""
    topics = composition.reactor(name).topics
    written = composition.clients.admin.written(topics)
    for field_, position in (("from", start), ("until", end or {})):
        for tp, offset in position.items():
            if tp not in written or not 0 <= offset <= written[tp]:
                where = f"a partition of {', '.join(topics)}" if tp not in written else f"an offset from 0 to {written[tp]}"
                raise InvalidValue(field_, f"expected {where}, found {tp[0][:40]}/{tp[1]} at {offset}")
    for tp, offset in sorted((end or {}).items()):
        if offset < start.get(tp, 0):
            raise InvalidValue("until", f"expected an end behind the beginning, found {tp[0]}/{tp[1]} from {start[tp]} to {offset}")
    # A partition that has lost all of its records ends where Kafka will go on: its range is missing, not empty.
    starts = composition.log.starts(topics)
    head = {tp: max(offset, starts.get(tp, 0)) for tp, offset in composition.log.ends(topics).items()}
    ends = {tp: offset if end is None else min(offset, end.get(tp, 0)) for tp, offset in head.items()}
    ends = {tp: offset for tp, offset in ends.items() if offset > start.get(tp, 0)}
    begin = {tp: start.get(tp, 0) for tp in ends}
    if note.continues(begin, ends if end is not None else None):
        return ResendResult(name, note.start, note.end, was_resumed=True), dict(note.reached)
    return ResendResult(name, begin, ends), {}


def _slices(composition: Composition, result: ResendResult, reached: Position) -> Iterator[tuple[RecordBatch, list[Effect]]]:
    """Records of the range that are still to be done, with the effects that they imply, in the order of the log in each partition."""
    reactor = composition.reactor(result.name)
    codec = ColumnCodec(composition.clients.catalog, reactor.reads)
    topics = sorted({topic for topic, _ in result.end})
    for whole in composition.log.read(topics, {**result.start, **reached}, result.end):
        for at in range(0, len(whole), SLICE_RECORDS):
            batch = whole.take(np.arange(at, min(at + SLICE_RECORDS, len(whole))))
            events, rejections = decode(codec, [batch])
            result.records += len(batch)
            result.unreadable += len(rejections)
            yield batch, reactor.effects(events)


@dataclass(slots=True)
class _Note:
    """How far a run has come: its range (`until` is none where nobody named an end), and up to where each partition is done."""

    file: Path
    start: Position = field(default_factory=dict)
    until: Position | None = None
    end: Position = field(default_factory=dict)
    reached: Position = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> _Note:
        """What stands in the file; nothing where there is none."""
        note = cls(file)
        with suppress(OSError, ValueError, KeyError):
            found = json.loads(file.read_text("utf-8"))
            until = found["until"]
            note.start, note.end, note.reached = (position_of(found[name]) for name in ("start", "end", "reached"))
            note.until = None if until is None else position_of(until)
        return note

    def continues(self, start: Position, until: Position | None) -> bool:
        """Whether it is of the same range, and recent. Partitions may have come since into one whose end nobody named."""
        if not self.reached or datetime.now(UTC) - datetime.fromtimestamp(self.file.stat().st_mtime, UTC) > RESUMES_WITHIN:
            return False
        same_start = all(start.get(tp) == offset for tp, offset in self.start.items())
        return same_start and self.until == until

    def write(self) -> None:
        """Keep it, whole or not at all."""
        content = {
            "start": plain(self.start), "until": None if self.until is None else plain(self.until), "end": plain(self.end),
            "reached": plain(self.reached),
        }  # fmt: skip
        fresh = self.file.with_suffix(".tmp")
        fresh.write_text(json.dumps(content), "utf-8")
        fresh.replace(self.file)

    def forget(self) -> None:
        """The run is done."""
        self.file.unlink(missing_ok=True)


@contextmanager
def _alone(file: Path, name: str) -> Iterator[None]:
    with file.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResendRefused(f"another `tidemark resend {name}` runs: wait for its end") from None
        yield
