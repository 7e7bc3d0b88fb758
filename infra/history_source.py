"""The log from its first event: the archive's objects, then Kafka from exactly where they end, partition by partition.

Kafka may forget (retention, deleted records); the archive does not. What neither holds is an error that names it, never a hole that
is read over: records lost in silence are the one thing that a log must not do.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog

from domain.errors import TidemarkError
from domain.log import Position, TopicPartition
from infra.clients import Clients
from infra.kafka.reading import read_batches
from projections.archive import ARCHIVED_TOPICS
from projections.archive_reading import ArchiveObject, ArchiveReader
from projections.errors import StoreDisagrees, StoreUnavailable
from projections.records import RecordBatch
from projections.runner import Source
from schema_registry.contracts import CONTROL_EVENTS
from schema_registry.errors import UndecodableRecord
from schema_registry.record_codec import RecordCodec

log = structlog.get_logger(__name__)

MARKER = 1  # offsets that one transaction's end takes in a partition
PREFIX = "raw"


class HistoryIncomplete(TidemarkError):
    """Records that are asked for are neither in Kafka nor in the archive. The message names the partitions and offsets."""


@dataclass(slots=True)
class Plan:
    """Which offsets come from where. In each partition the archive is read from `start` to `seams`, Kafka from `kafka` on."""

    start: Position
    kafka: dict[TopicPartition, int] = field(default_factory=dict)
    seams: dict[TopicPartition, int] = field(default_factory=dict)
    objects: Mapping[TopicPartition, Sequence[ArchiveObject]] = field(default_factory=dict)
    archive: ArchiveReader | None = None

    def archived(self) -> Iterator[RecordBatch]:
        """The archive's part."""
        if self.archive is not None and self.seams:
            yield from self.archive.read_between(self.objects, self.start, self.seams)

    def archived_objects(self) -> list[ArchiveObject]:
        """The objects of that part."""
        return [thing for place, end in self.seams.items() for thing in self._of(place) if thing.first < end]

    def _of(self, place: TopicPartition) -> list[ArchiveObject]:
        found = self.objects.get(place, ())
        start = self.start.get(place, 0)
        return [thing for i, thing in enumerate(found) if i + 1 == len(found) or found[i + 1].first > start]


class History:
    """Reads committed records of the archived topics from any position, wherever they are kept."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def read(self, topics: Sequence[str], start: Position, end: Position) -> Iterator[RecordBatch]:
        """Committed records from `start` up to `end`; the archive is asked only for what Kafka has no longer.

        Raises:
            HistoryIncomplete: neither holds them all.
            StoreUnavailable: the archive is needed and does not answer.
            LogError: Kafka does not answer.
        """
        plan = self.plan(topics, start, prefers_archive=False, end=end)
        yield from _clipped(plan.archived(), end)
        yield from read_batches(self._clients.kafka, topics, plan.kafka, end, self._clients.admin.starts(topics))

    def ends(self, known: Position) -> Position:
        """`known` ends of partitions, with those of which Kafka has no record left filled in from the archive."""
        empty = [tp for tp, end in known.items() if not end and tp[0] in ARCHIVED_TOPICS]
        starts = self._clients.admin.starts({topic for topic, _ in empty}) if empty else {}
        empty = [tp for tp in empty if starts.get(tp, 0)]
        if not empty:
            return known
        archive = self.archive()
        objects = archive.objects([topic for topic, _ in empty])
        return {**known, **{tp: archive.end_of(objects[tp][-1]) for tp in empty if tp in objects}}

    def plan(self, topics: Sequence[str], start: Position, *, prefers_archive: bool, end: Position | None = None) -> Plan:
        """Where to read what from.

        Args:
            prefers_archive: take from the archive all that it has, not only what Kafka has no longer.
            end: partitions that are not read past what `end` says need nothing beyond it.

        Raises:
            HistoryIncomplete: neither holds all from `start` on.
            StoreDisagrees: the archive is of another log.
            StoreUnavailable: the archive is needed and does not answer.
        """
        starts = self._clients.admin.starts(topics)
        is_cut = {tp: s > start.get(tp, 0) and (end is None or end.get(tp, 0) > start.get(tp, 0)) for tp, s in starts.items()}
        is_cut = {tp: cut and tp[0] in ARCHIVED_TOPICS for tp, cut in is_cut.items()}
        plan = Plan(start, dict(start))
        if not (prefers_archive or any(is_cut.values())):
            return plan
        try:
            plan.archive = self.archive()
            plan.objects = plan.archive.objects([topic for topic in topics if topic in ARCHIVED_TOPICS])
            beginning = plan.archive.beginning()
        except StoreUnavailable:
            if any(is_cut.values()):
                raise
            log.warning("archive_not_read", reason="it does not answer; Kafka holds everything")
            return Plan(start, dict(start))
        ends = self._clients.admin.ends(topics)
        missing = []
        for tp, kafka_start in sorted(starts.items()):
            if prefers_archive or is_cut[tp]:
                missing += self._stitch(plan, tp, kafka_start, ends[tp], beginning, prefers_archive)
        if missing:
            raise HistoryIncomplete(
                f"the log is not whole any more: {'; '.join(missing[:5])}"
                f"{f' and {len(missing) - 5} partitions more' if len(missing) > 5 else ''}."
                " What reads it from there on would be wrong: bring back an archive that reaches Kafka's first offset"
            )
        return plan

    def lifted(self, topics: Sequence[str], position: Position, may_begin_late: bool = False) -> Position:
        """A position that Kafka still holds. One that stands before a transaction marker which retention has cut off is moved over it.

        Args:
            may_begin_late: a partition without a position may begin where Kafka does: for the archive itself.

        Raises:
            HistoryIncomplete: records between the position and Kafka's first offset were never read: the store must be rebuilt.
        """
        starts = self._clients.admin.starts([topic for topic in topics if topic in ARCHIVED_TOPICS])
        behind = {tp: s for tp, s in starts.items() if s > position.get(tp, s if may_begin_late else 0)}
        if not behind:
            return position
        wanted = {**{tp: s for tp, s in starts.items() if tp not in behind}, **position}
        plan = self.plan(topics, wanted, prefers_archive=False)
        for batch in plan.archived():  # none, where the archive went on past that marker long ago
            place = (batch.topic, int(batch.partitions[0]))
            raise HistoryIncomplete(
                f"{place[0]}-{place[1]}: Kafka begins at {behind[place]}, and records from {position.get(place, 0)} on were not read"
                " before: they are in the archive. Rebuild this store, which reads it (`tidemark rebuild`)"
            )
        return {**position, **{tp: plan.kafka[tp] for tp in behind}}

    def demand_in_log(self, position: Position) -> None:
        """Demand that a position stands in this log.

        Raises:
            StoreDisagrees: it stands behind the end: the log was made anew or cut at its end, and offsets mean other records now.
            LogError: Kafka does not answer.
        """
        ends = self._clients.admin.written({topic for topic, _ in position}) if position else {}
        for (topic, partition), end in sorted(ends.items()):
            if position.get((topic, partition), 0) > end:
                raise StoreDisagrees(
                    f"{topic}-{partition}: this store has read up to {position[topic, partition]}, Kafka ends at {end}: it was filled from"
                    " another log. Was the topic made anew? Then rebuild the store from this log (`tidemark rebuild`, the archive of the"
                    " old one moved away), or lead TIDEMARK_KAFKA__BOOTSTRAP back to the old one. Nothing was written"
                )

    def archive(self) -> ArchiveReader:
        """The live generation of the archive. Where Kafka has forgotten which one that is, an archive says so itself.

        Raises:
            HistoryIncomplete: none of them knows all control events.
            StoreUnavailable: S3 does not answer.
        """
        starts = self._clients.admin.starts([CONTROL_EVENTS])
        ends = self._clients.admin.ends([CONTROL_EVENTS])
        if not any(starts.values()):
            return self._reader(self._generation(read_batches(self._clients.kafka, [CONTROL_EVENTS], {}, ends, starts)))
        problems: list[str] = []
        for generation in self._generations():
            candidate = self._reader(generation)
            plan = Plan({}, {}, archive=candidate, objects=candidate.objects([CONTROL_EVENTS]))
            beginning = candidate.beginning()
            lacking = [
                text for tp, s in sorted(starts.items()) if s for text in self._stitch(plan, tp, s, ends[tp], beginning, is_preferred=False)
            ]
            if lacking:
                problems += [f"archive g{generation}: {lacking[0]}"]
                continue

            def control(plan: Plan = plan) -> Iterator[RecordBatch]:
                yield from plan.archived()
                yield from read_batches(self._clients.kafka, [CONTROL_EVENTS], plan.kafka, ends, starts)

            # Any archive that knows all control events gives the same answer: they say which of them is live.
            return self._reader(self._generation(control()))
        found = "; ".join(problems) or "none is there"
        raise HistoryIncomplete(f"{CONTROL_EVENTS} does not begin at its first offset any more, and no archive has the rest: {found}")

    def _stitch(
        self, plan: Plan, tp: TopicPartition, kafka_start: int, kafka_end: int, beginning: Position | None, is_preferred: bool
    ) -> list[str]:
        """Add one partition to the plan, or say what is missing of it."""
        name = f"{tp[0]}-{tp[1]}"
        first = plan.start.get(tp, 0)
        objects = plan.objects.get(tp, ())
        assert plan.archive is not None
        begin = beginning.get(tp, 0) if beginning is not None else (objects[0].first if objects else first)
        end = plan.archive.end_of(objects[-1]) if objects else begin
        if end > kafka_end:
            raise StoreDisagrees(
                f"{name}: the archive reaches offset {end}, Kafka only {kafka_end}: they are of different logs."
                " Was the topic made anew? Then the archive belongs to the old one: move it away"
            )
        if begin > first or end < first:
            if kafka_start <= first:
                return []  # the archive does not reach that far, and need not
            has = f"the archive holds {begin} to {end}" if objects else "the archive has none of it"
            return [f"{name}: offsets {first} to {kafka_start} are wanted, Kafka begins at {kafka_start}, {has}"]
        if end < kafka_start and not self._is_marker(tp, end, kafka_start, kafka_end):
            return [f"{name}: the archive ends at {end} and Kafka begins at {kafka_start}: offsets between are in neither"]
        seam = max(end, kafka_start) if is_preferred else kafka_start
        if min(end, seam) > first:
            plan.seams[tp] = min(end, seam)
        plan.kafka[tp] = max(first, seam)
        return []

    def _is_marker(self, tp: TopicPartition, end: int, kafka_start: int, kafka_end: int) -> bool:
        """Whether the one offset between the archive's end and Kafka's start is a transaction's marker, which no reader is given.

        Every record of a transaction has its marker behind it. Were the offset a record, the marker would stand at Kafka's first offset:
        so it is a marker if Kafka holds a record there, or nothing at all.
        """
        if kafka_start - end != MARKER:
            return False
        if kafka_start >= kafka_end:
            return True
        batches = read_batches(self._clients.kafka, [tp[0]], {tp: kafka_start}, {tp: kafka_end}, {tp: kafka_start}, max_records=100)
        batch = next(batches, None)
        return batch is not None and int(batch.offsets[0]) == kafka_start

    def _reader(self, generation: int) -> ArchiveReader:
        return ArchiveReader(self._clients.s3, self._clients.settings.s3.bucket, generation, PREFIX)

    def _generations(self) -> list[int]:
        """The generations that have a folder, newest first."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            page = self._clients.s3.list_objects_v2(Bucket=self._clients.settings.s3.bucket, Prefix=f"{PREFIX}/g", Delimiter="/")
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"S3: the archive's generations cannot be listed: {error}") from error
        names = [item["Prefix"].removeprefix(f"{PREFIX}/g").rstrip("/") for item in page.get("CommonPrefixes", ())]
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def _generation(self, batches: Iterator[RecordBatch]) -> int:
        codec = RecordCodec(self._clients.catalog)
        swaps: list[tuple[int, int, int]] = []
        clock = dict[int, int]()
        for batch in batches:
            for index, value in enumerate(batch.values):
                try:
                    name, record = codec.decode(value)
                except UndecodableRecord:
                    continue
                if name == "GenerationSwapped" and record["projection"] == "archive":
                    partition = int(batch.partitions[index])
                    # A broker's clock may step back; the records of a partition do not.
                    at = clock[partition] = max(clock.get(partition, 0), int(batch.timestamps_ms[index]))
                    swaps.append((at, int(batch.offsets[index]), int(record["generation"])))
        return max(swaps)[2] if swaps else 1


class HistorySource:
    """The runner's source over archive and Kafka, for work that reads every partition and shares none.

    Args:
        kafka: reads Kafka, every partition; opened once the archive is read.
        prefers_archive: read from the archive all that it has, not only what Kafka has no longer.
        end: stop giving records there; partitions that are absent have no end.
    """

    def __init__(
        self, history: History, kafka: Source, topics: Sequence[str], *, prefers_archive: bool = False, end: Position | None = None
    ) -> None:
        self._history, self._kafka, self._topics = history, kafka, tuple(topics)
        self._prefers_archive, self._end = prefers_archive, end
        self._archived: Iterator[RecordBatch] = iter(())
        self._rest: RecordBatch | None = None
        self._position: Position = {}
        self._is_in_kafka = False

    def open(self, load_position: Callable[[], Position], on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """See `projections.runner.Source`.

        Raises:
            HistoryIncomplete: neither archive nor Kafka holds all from the position on.
            StoreDisagrees: the position is of another log.
        """
        position = load_position()
        self._history.demand_in_log(position)
        plan = self._history.plan(self._topics, position, prefers_archive=self._prefers_archive)
        self._archived, self._position = plan.archived(), plan.kafka

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """See `projections.runner.Source`."""
        while not self._is_in_kafka:
            batch = self._rest if self._rest is not None else next(self._archived, None)
            self._rest = None
            if batch is None:
                self._kafka.open(lambda: self._position, lambda: None, lambda: None)
                self._is_in_kafka = True
                break
            if len(batch) > max_records:
                self._rest = batch.take(np.arange(max_records, len(batch)))
                batch = batch.take(np.arange(max_records))
            kept = list(_clipped([batch], self._end))
            if kept:
                return kept
        return list(_clipped(self._kafka.poll(max_records, timeout_s), self._end))

    def close(self) -> None:
        """Let go of both."""
        if isinstance(self._archived, Generator):
            self._archived.close()
        self._kafka.close()


class LiftedSource:
    """Another source that starts where Kafka still can: see `History.lifted`. For live workers that share partitions."""

    def __init__(self, source: Source, history: History, topics: Sequence[str], *, may_begin_late: bool = False) -> None:
        self._source, self._history, self._topics = source, history, tuple(topics)
        self._may_begin_late = may_begin_late

    def open(self, load_position: Callable[[], Position], on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """See `projections.runner.Source`.

        Raises:
            HistoryIncomplete: retention has overtaken this worker.
            StoreDisagrees: the position is of another log.
        """

        def load() -> Position:
            position = load_position()
            self._history.demand_in_log(position)
            return self._history.lifted(self._topics, position, self._may_begin_late)

        self._source.open(load, on_revoked, on_lost)

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """See `projections.runner.Source`."""
        return self._source.poll(max_records, timeout_s)

    def close(self) -> None:
        """See `projections.runner.Source`."""
        self._source.close()


def _clipped(batches: Iterable[RecordBatch], end: Position | None) -> Iterator[RecordBatch]:
    if end is None:
        yield from batches
        return
    for batch in batches:
        ends = np.array([end.get((batch.topic, p), np.iinfo(np.int64).max) for p in batch.partitions.tolist()])
        within = np.flatnonzero(batch.offsets < ends)
        if len(within) == len(batch):
            yield batch
        elif len(within):
            yield batch.take(within)
