"""Proof that a store equals the log: read the store back, read the log, compare; never the runner's own counters.

Both sides are compared at one position, the store's checkpoint, while traffic flows: the log's head is noted first, the store is waited
for while it moves towards it, and what is still missing of it then is named as lag. Every offset is a record or a named hole; every
record is applied, a named exclusion, or in quarantine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from domain.log import Position
from projections.archive import RawArchive
from projections.coverage import Coverage, Covered, Visible
from projections.decoding import decode, drop
from projections.errors import ProjectionError
from projections.fingerprint import Fingerprint, fingerprints, first_difference
from projections.protocol import EventBatch, Excluded, ReadBack, Rejection, Verifiable
from projections.quarantine import QuarantineKey, replayed_places
from projections.records import NO_SEQ, RecordBatch
from schema_registry.byte_column import ByteColumn
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import COMMAND_RESULTS, COMMANDS, TRANSACTION_EVENTS

ReadLog = Callable[[Sequence[str], Position, Position], Iterator[RecordBatch]]
"""Committed records of topics from a position to another."""

DROPPED = "dropped_from_quarantine"
"""Why a store does not hold a record that a person gave up."""
NOT_READ = "event_type_not_read"
"""Why a store does not hold an event that is none of its own."""
MOVING_ATTEMPTS = 5  # a store without snapshots that is written to meanwhile is read again
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Aside:
    """The quarantine: keys of the open entries, and of those that were given up (no store holds them: each is a named exclusion)."""

    open: frozenset[QuarantineKey] = frozenset()
    dropped: frozenset[QuarantineKey] = frozenset()


@dataclass(slots=True)
class Proof:
    """What was found of one store. `rows` by table.

    records = `applied` + `quarantined` + those in `excluded` that no store takes (`NOT_READ`, `DROPPED`); the other exclusions are records
    that were applied and have no row of their own. `lag_records` counts offsets up to the head of the log, as it was when the proof began,
    that the store has not reached.
    """

    store: str
    is_ok: bool
    records: int = 0
    applied: int | None = None
    quarantined: int = 0
    lag_records: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    offsets: list[Covered] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The proof as plain values."""
        return {
            "store": self.store, "ok": self.is_ok, "records": self.records, "applied": self.applied, "rows": self.rows,
            "excluded": self.excluded, "quarantined": self.quarantined, "lag_records": self.lag_records, "problems": self.problems,
            "offsets": [covered.as_json() for covered in self.offsets],
        }  # fmt: skip


class Verifier:
    """Compares stores with one log.

    Args:
        read: reads the log.
        ends: for topics, the offset after each partition's last record.
        aside: the quarantine as it is; asked once a store's position is known, so that it holds all that was set aside before.
        starts: for topics, the first offset that Kafka still holds; by default all that ever was.
        heads: for topics, the last stable offset of each partition; by default `ends`.
        visible: tells transaction markers from records of aborted transactions; without it they are holes.
        patience_s: how long a store that is behind, and does not move, is waited for.
    """

    def __init__(
        self,
        read: ReadLog,
        ends: Callable[[Sequence[str]], Position],
        aside: Callable[[], Aside],
        catalog: SchemaCatalog,
        starts: Callable[[Sequence[str]], Position] = lambda topics: {},
        heads: Callable[[Sequence[str]], Position] | None = None,
        visible: Visible | None = None,
        patience_s: float = 0.0,
    ) -> None:
        self._read, self._ends, self._aside, self._catalog = read, ends, aside, catalog
        self._starts = starts
        self._heads = heads if heads is not None else ends
        self._visible = visible
        self._patience_s = patience_s

    def log(self) -> Proof:
        """The log itself: seqs contiguous from 0, and every command accounted for."""
        proof = Proof("log", True)
        head = self._head((TRANSACTION_EVENTS, COMMANDS))
        coverage = Coverage(head.starts)
        seqs, strays = self._seqs(head, coverage)
        proof.rows = {"transactions": len(seqs)}
        proof.excluded = {"without_seq": strays} if strays else {}
        ordered = np.sort(seqs)
        holes = np.flatnonzero(ordered != np.arange(len(ordered)))
        if len(holes):
            proof.problems.append(f"seq {int(holes[0])} is missing or double: found {int(ordered[holes[0]])} in its place")
        # Commands and their results are not archived: where retention has cut them, what both still hold is compared.
        kept_from = max(self._starts([COMMANDS]).values(), default=0)
        wanted = max((end for tp, end in head.ends.items() if tp[0] == COMMANDS), default=0)
        results = [result for result in self._results(wanted) if int(result["first_offset"]) >= kept_from]
        is_cut = kept_from > 0 or max(self._starts([COMMAND_RESULTS]).values(), default=0) > 0
        if is_cut:
            kept_from = min((int(result["first_offset"]) for result in results), default=kept_from)
            proof.excluded["commands_cut_by_retention"] = kept_from
        # Whatever has come meanwhile: of the commands that were handled each is accounted for, and those before the head are handled.
        reached = max((int(result["next_offset"]) for result in results), default=0)
        commands = 0
        ends = self._ends([COMMANDS])
        for batch in coverage.through(self._read([COMMANDS], {}, ends)):
            proof.records += int(((batch.offsets >= kept_from) & (batch.offsets < max(wanted, reached))).sum())
            commands += int(((batch.offsets >= kept_from) & (batch.offsets < reached)).sum())
        counts = {name: sum(int(r[name]) for r in results) for name in ("recorded", "duplicates", "held", "decided", "quarantined")}
        counts["refused"] = sum(len(result["refusals"]) for result in results)
        proof.excluded.update(counts)
        accounted = sum(counts.values())
        proof.lag_records = proof.records - commands
        if accounted != commands:
            proof.problems.append(f"{commands} commands, but {accounted} are accounted for")
        covered = {tp: max(end, head.ends.get(tp, 0)) for tp, end in head.heads.items()}  # what came between the two looks was read
        self._cover(proof, coverage, head.topics, {**covered, **ends}, head)
        proof.is_ok = not proof.problems and not proof.lag_records
        return proof

    def archive(self, archive: RawArchive) -> Proof:
        """Every record of the archived topics, byte for byte."""
        head = self._head(archive.topics)
        self._wait(archive.load_position, head)
        position = archive.load_position()
        proof = self._started("archive", position, head)
        coverage = Coverage(head.starts)
        expected = fingerprints((b.topic, raw_table(b)) for b in coverage.through(self._read(archive.topics, {}, position)))
        stored = fingerprints((b.topic, raw_table(b)) for b in _up_to(archive.read(), position))
        proof.records = proof.applied = sum(found.rows for found in expected.values())
        proof.problems += archive.gaps()
        if any(head.starts.values()):  # of these nothing is left to compare with: their order and their names are all that is proven
            alone = sum(int((b.offsets < head.starts.get((b.topic, int(b.partitions[0])), 0)).sum()) for b in archive.read(archive.topics))
            if alone:
                proof.excluded["kept_by_the_archive_alone"] = alone
        self._cover(proof, coverage, archive.topics, position, head)
        self._compare(
            proof, expected, stored,
            lambda topic: (raw_table(b) for b in self._read([topic], {}, position)),
            lambda topic: (raw_table(b) for b in _up_to(archive.read([topic]), position)),
        )  # fmt: skip
        return proof

    def projection(self, projection: Verifiable) -> Proof:
        """Every row of a projection's store.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        head = self._head(projection.topics)
        self._wait(projection.load_position, head)
        try:
            with _pinned(projection) as (position, stored, read_back):
                proof = self._started(projection.name, position, head)
                aside = self._aside()
                coverage, excluded = Coverage(head.starts), Excluded()
                expected = fingerprints(self._expected(projection, position, aside, coverage, excluded, proof))
                proof.excluded = dict(sorted(excluded.count_by_reason.items()))
                taken = (proof.applied or 0) + proof.quarantined + sum(proof.excluded.get(name, 0) for name in (NOT_READ, DROPPED))
                if taken != proof.records:
                    proof.problems.append(f"{proof.records} records, but {taken} are accounted for")
                self._cover(proof, coverage, projection.topics, position, head)
                again = Proof("", True)
                self._compare(
                    proof, expected, stored,
                    lambda name: (
                        t for n, t in self._expected(projection, position, aside, Coverage({}), Excluded(), again) if n == name
                    ),
                    lambda name: (t for n, t in read_back() if n == name),
                )  # fmt: skip
        except _NeverStill:
            proof = self._started(projection.name, projection.load_position(), head)
            proof.problems.append("the store was written to all the time; stop its worker, or try when it is quiet")
            proof.is_ok = False
        return proof

    def _head(self, topics: Sequence[str]) -> _Head:
        heads = self._heads(topics)  # before the ends: of what was committed in between, nobody says that it is not there
        return _Head(tuple(topics), heads, self._ends(topics), self._starts(topics))

    def _wait(self, load_position: Callable[[], Position], head: _Head) -> None:
        """Until a store has reached the head, or does not move any more."""
        position = load_position()
        moved_at = time.monotonic()
        while head.is_ahead_of(position) and time.monotonic() - moved_at < self._patience_s:
            time.sleep(POLL_S)
            if (found := load_position()) != position:
                position, moved_at = found, time.monotonic()

    def _started(self, store: str, position: Position, head: _Head) -> Proof:
        proof = Proof(store, True)
        proof.lag_records = sum(max(0, end - position.get(tp, 0)) for tp, end in head.ends.items())
        if proof.lag_records:
            proof.problems.append(f"the store is behind the log by {proof.lag_records} offsets")
        return proof

    def _cover(self, proof: Proof, coverage: Coverage, topics: Sequence[str], position: Position, head: _Head) -> None:
        proof.offsets = coverage.ranges(topics, position, head.ends, head.heads, self._visible)
        proof.problems += coverage.problems

    def _expected(
        self, projection: Verifiable, position: Position, aside: Aside, coverage: Coverage, excluded: Excluded, proof: Proof
    ) -> Iterator[tuple[str, pa.Table]]:
        # Given back and not noted as such: a replay died between the store and the quarantine topic. The store has these records.
        held = {(projection.name, *place) for place in replayed_places(position)}
        quarantined, dropped = aside.open - held, aside.dropped - held
        codec = ColumnCodec(self._catalog, projection.reads)
        proof.applied = 0

        def batches() -> Iterator[EventBatch]:
            ahead: tuple[str, ...] = getattr(projection, "read_first", ())
            rest = tuple(topic for topic in projection.topics if topic not in ahead)
            records = chain(self._read(ahead, {}, position) if ahead else (), self._read(rest, {}, position))
            for batch in coverage.through(records):
                events, failures = decode(codec, [batch])
                proof.records += len(batch)
                excluded.add(NOT_READ, len(batch) - events.rows - len(failures))
                accounted = quarantined | dropped
                unknown = [f for f in failures if (projection.name, f.topic, f.partition, f.offset) not in accounted]
                if unknown:
                    first = unknown[0]
                    proof.problems.append(f"{first.topic}-{first.partition}@{first.offset}: {first.message}, and it is not in quarantine")
                put_aside = _among(quarantined, projection.name, batch)
                given_up = _among(dropped, projection.name, batch)
                proof.quarantined += len(put_aside)
                excluded.add(DROPPED, len(given_up))
                kept = drop(events, [*put_aside, *given_up])
                proof.applied = (proof.applied or 0) + kept.rows
                yield kept

        return projection.expected(batches(), excluded)

    def _compare(
        self,
        proof: Proof,
        expected: Mapping[str, Fingerprint],
        stored: Mapping[str, Fingerprint],
        expected_rows: Callable[[str], Iterator[pa.Table]],
        stored_rows: Callable[[str], Iterator[pa.Table]],
    ) -> None:
        nothing = Fingerprint()
        for name in sorted({*expected, *stored}):
            wanted, found = expected.get(name, nothing), stored.get(name, nothing)
            proof.rows[name] = found.rows
            if wanted != found:
                proof.problems.append(
                    f"{wanted.rows} rows implied, {found.rows} stored; {first_difference(name, expected_rows(name), stored_rows(name))}"
                )
        proof.is_ok = not proof.problems

    def _seqs(self, head: _Head, coverage: Coverage) -> tuple[np.ndarray, int]:
        """The seqs up to the head, and how many records have none. A transaction shows in one partition a moment before it does in
        another: what is missing below the greatest seq is looked for again."""
        reached = {tp: end for tp, end in head.ends.items() if tp[0] == TRANSACTION_EVENTS}
        seqs, strays = _seqs_of(coverage.through(self._read([TRANSACTION_EVENTS], {}, reached)))
        last = int(seqs.max(initial=-1))
        for _ in range(MOVING_ATTEMPTS):
            if len(seqs) > last:
                break
            time.sleep(POLL_S)
            ends = self._ends([TRANSACTION_EVENTS])
            late, _ = _seqs_of(self._read([TRANSACTION_EVENTS], reached, ends))
            seqs, reached = np.concatenate([seqs, late[late <= last]]), dict(ends)
        return seqs, strays

    def _results(self, wanted: int) -> list[dict[str, Any]]:
        """What was said of the commands so far; waits while there is more to come of those before the offset `wanted`."""
        codec = ColumnCodec(self._catalog, {"CommandsHandled": ()})
        found: list[dict[str, Any]] = []
        reached: Position = {}
        moved_at = time.monotonic()
        while True:
            ends = self._ends([COMMAND_RESULTS])
            for batch in self._read([COMMAND_RESULTS], reached, ends):
                decoded = codec.decode(batch.values).tables.get("CommandsHandled")
                found += decoded.table.to_pylist() if decoded is not None else []
            if ends != reached:
                reached, moved_at = ends, time.monotonic()
            is_all = max((int(result["next_offset"]) for result in found), default=0) >= wanted
            if is_all or time.monotonic() - moved_at >= self._patience_s:
                return found
            time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class _Head:
    """The log as a proof begins: last stable offsets, the ends of records (taken after those), and the first offsets in Kafka."""

    topics: tuple[str, ...]
    heads: Position
    ends: Position
    starts: Position

    def is_ahead_of(self, position: Position) -> bool:
        return any(end > position.get(tp, 0) for tp, end in self.ends.items())


class _NeverStill(ProjectionError):
    """A store without snapshots could not be read between two writes."""


@contextmanager
def _pinned(projection: Verifiable) -> Iterator[tuple[Position, dict[str, Fingerprint], ReadBack]]:
    """A store's position, its rows as of then, and what reads them again.

    Raises:
        _NeverStill: it has no snapshots, and was written to all the time.
    """
    pinned = getattr(projection, "pinned", None)
    if pinned is not None:
        with pinned() as (position, read_back):
            yield position, fingerprints(read_back()), read_back
        return
    for _ in range(MOVING_ATTEMPTS):
        position = projection.load_position()
        stored = fingerprints(projection.read_back())
        if projection.load_position() == position:
            yield position, stored, projection.read_back
            return
    raise _NeverStill


def _seqs_of(batches: Iterator[RecordBatch]) -> tuple[np.ndarray, int]:
    parts = [batch.seqs() for batch in batches]
    seqs = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    return seqs[seqs != NO_SEQ], int((seqs == NO_SEQ).sum())


def _among(keys: frozenset[QuarantineKey], name: str, batch: RecordBatch) -> list[Rejection]:
    if not keys:
        return []
    places = zip(batch.partitions.tolist(), batch.offsets.tolist(), strict=True)
    return [Rejection(batch.topic, p, o, "", "") for p, o in places if (name, batch.topic, p, o) in keys]


def raw_table(batch: RecordBatch) -> pa.Table:
    """Records as rows to compare: coordinates, time, key, value and headers."""
    headers = ["; ".join(f"{name}={(value or b'').hex()}" for name, value in found or ()) for found in batch.headers]
    return pa.table(
        {
            "_partition": pa.array(batch.partitions),
            "_offset": pa.array(batch.offsets),
            "_timestamp_ms": pa.array(batch.timestamps_ms),
            "key": ByteColumn.of(batch.keys).arrow(),
            "value": ByteColumn.of(batch.values).arrow(),
            "headers": pa.array(headers),
        }
    )


def _up_to(batches: Iterator[RecordBatch], position: Position) -> Iterator[RecordBatch]:
    for batch in batches:
        ends = np.array([position.get((batch.topic, p), 0) for p in batch.partitions.tolist()])
        within = np.flatnonzero(batch.offsets < ends)
        yield batch if len(within) == len(batch) else batch.take(within)
