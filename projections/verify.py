"""Proof that a store equals the log: read the store back, read the log, compare; never the runner's own counters.

Both sides are compared at one position, the store's checkpoint; what the log has beyond it is named as lag. Every record is a row,
a named exclusion, or in quarantine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from domain.log import Position
from projections.archive import RawArchive
from projections.decoding import decode, drop
from projections.fingerprint import Fingerprint, fingerprints, first_difference
from projections.protocol import EventBatch, Excluded, Rejection, Verifiable
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
MOVING_ATTEMPTS = 5  # a store that is written to meanwhile is read again


@dataclass(slots=True)
class Proof:
    """What was found of one store. `rows` by table; `lag_records` counts what the log has beyond the store's position."""

    store: str
    is_ok: bool
    records: int = 0
    quarantined: int = 0
    lag_records: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The proof as plain values."""
        return {
            "store": self.store, "ok": self.is_ok, "records": self.records, "rows": self.rows, "excluded": self.excluded,
            "quarantined": self.quarantined, "lag_records": self.lag_records, "problems": self.problems,
        }  # fmt: skip


class Verifier:
    """Compares stores with one log.

    Args:
        read: reads the log.
        ends: for topics, the offset after each partition's last record.
        quarantined: the keys of open quarantine entries.
        starts: for topics, the first offset that Kafka still holds; by default all that ever was.
        dropped: the keys of entries that were given up: no store holds them, and each is a named exclusion.
    """

    def __init__(
        self,
        read: ReadLog,
        ends: Callable[[Sequence[str]], Position],
        quarantined: frozenset[QuarantineKey],
        catalog: SchemaCatalog,
        dropped: frozenset[QuarantineKey] = frozenset(),
        starts: Callable[[Sequence[str]], Position] = lambda topics: {},
    ) -> None:
        self._read, self._ends, self._quarantined, self._catalog = read, ends, quarantined, catalog
        self._dropped = dropped
        self._starts = starts

    def log(self) -> Proof:
        """The log itself: seqs contiguous from 0, and every command accounted for."""
        proof = Proof("log", True)
        seqs, strays = self._seqs()
        proof.rows = {"transactions": len(seqs)}
        proof.excluded = {"without_seq": strays} if strays else {}
        ordered = np.sort(seqs)
        holes = np.flatnonzero(ordered != np.arange(len(ordered)))
        if len(holes):
            proof.problems.append(f"seq {int(holes[0])} is missing or double: found {int(ordered[holes[0]])} in its place")
        # Commands and their results are not archived: where retention has cut them, what both still hold is compared.
        kept_from = max(self._starts([COMMANDS]).values(), default=0)
        results = [result for result in self._results() if int(result["first_offset"]) >= kept_from]
        is_cut = kept_from > 0 or max(self._starts([COMMAND_RESULTS]).values(), default=0) > 0
        if is_cut:
            kept_from = min((int(result["first_offset"]) for result in results), default=kept_from)
            proof.excluded["commands_cut_by_retention"] = kept_from
        commands = sum(int((batch.offsets >= kept_from).sum()) for batch in self._read([COMMANDS], {}, self._ends([COMMANDS])))
        proof.records = commands
        counts = {name: sum(int(r[name]) for r in results) for name in ("recorded", "duplicates", "held", "decided", "quarantined")}
        counts["refused"] = sum(len(result["refusals"]) for result in results)
        proof.excluded.update(counts)
        accounted = sum(counts.values())
        reached = max((int(result["next_offset"]) for result in results), default=0)
        proof.lag_records = commands - accounted if reached < max(self._ends([COMMANDS]).values(), default=0) else 0
        if accounted + proof.lag_records != commands:
            proof.problems.append(f"{commands} commands, but {accounted} are accounted for")
        proof.is_ok = not proof.problems and not proof.lag_records
        return proof

    def archive(self, archive: RawArchive) -> Proof:
        """Every record of the archived topics, byte for byte."""
        position = archive.load_position()
        proof = self._started("archive", archive.topics, position)
        expected = fingerprints((b.topic, raw_table(b)) for b in self._read(archive.topics, {}, position))
        stored = fingerprints((b.topic, raw_table(b)) for b in _up_to(archive.read(), position))
        proof.records = sum(found.rows for found in expected.values())
        proof.problems += archive.gaps()
        starts = self._starts(archive.topics)
        if any(starts.values()):  # of these nothing is left to compare with: their order and their names are all that is proven
            alone = sum(int((b.offsets < starts.get((b.topic, int(b.partitions[0])), 0)).sum()) for b in archive.read(archive.topics))
            if alone:
                proof.excluded["kept_by_the_archive_alone"] = alone
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
        for _ in range(MOVING_ATTEMPTS):
            position = projection.load_position()
            proof = self._started(projection.name, projection.topics, position)
            stored = fingerprints(projection.read_back())
            if projection.load_position() == position:
                break
        else:
            proof.problems.append("the store was written to all the time; stop its worker, or try when it is quiet")
            proof.is_ok = False
            return proof
        excluded = Excluded()
        expected = fingerprints(self._expected(projection, position, excluded, proof))
        proof.excluded = dict(sorted(excluded.count_by_reason.items()))
        self._compare(
            proof, expected, stored,
            lambda name: (t for n, t in self._expected(projection, position, Excluded(), Proof("", True)) if n == name),
            lambda name: (t for n, t in projection.read_back() if n == name),
        )  # fmt: skip
        return proof

    def _started(self, store: str, topics: Sequence[str], position: Position) -> Proof:
        proof = Proof(store, True)
        ends = self._ends(topics)
        proof.lag_records = sum(max(0, end - position.get(tp, 0)) for tp, end in ends.items())
        if proof.lag_records:
            proof.problems.append(f"the store is behind the log by {proof.lag_records} offsets")
        return proof

    def _expected(self, projection: Verifiable, position: Position, excluded: Excluded, proof: Proof) -> Iterator[tuple[str, pa.Table]]:
        # Given back and not noted as such: a replay died between the store and the quarantine topic. The store has these records.
        held = {(projection.name, *place) for place in replayed_places(position)}
        quarantined, dropped = self._quarantined - held, self._dropped - held
        codec = ColumnCodec(self._catalog, projection.reads)

        def batches() -> Iterator[EventBatch]:
            ahead: tuple[str, ...] = getattr(projection, "read_first", ())
            rest = tuple(topic for topic in projection.topics if topic not in ahead)
            for batch in chain(self._read(ahead, {}, position) if ahead else (), self._read(rest, {}, position)):
                events, failures = decode(codec, [batch])
                proof.records += len(batch)
                excluded.add("event_type_not_read", len(batch) - events.rows - len(failures))
                accounted = quarantined | dropped
                unknown = [f for f in failures if (projection.name, f.topic, f.partition, f.offset) not in accounted]
                if unknown:
                    first = unknown[0]
                    proof.problems.append(f"{first.topic}-{first.partition}@{first.offset}: {first.message}, and it is not in quarantine")
                aside = _among(quarantined, projection.name, batch)
                given_up = _among(dropped, projection.name, batch)
                proof.quarantined += len(aside)
                excluded.add(DROPPED, len(given_up))
                yield drop(events, [*aside, *given_up])

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

    def _seqs(self) -> tuple[np.ndarray, int]:
        parts = [batch.seqs() for batch in self._read([TRANSACTION_EVENTS], {}, self._ends([TRANSACTION_EVENTS]))]
        seqs = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        return seqs[seqs != NO_SEQ], int((seqs == NO_SEQ).sum())

    def _results(self) -> list[dict[str, Any]]:
        codec = ColumnCodec(self._catalog, {"CommandsHandled": ()})
        found: list[dict[str, Any]] = []
        for batch in self._read([COMMAND_RESULTS], {}, self._ends([COMMAND_RESULTS])):
            decoded = codec.decode(batch.values).tables.get("CommandsHandled")
            found += decoded.table.to_pylist() if decoded is not None else []
        return found


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
