"""The raw archive read as a log: its objects in order, from one position to another, and what it can vouch for.

An archive vouches for a partition from where it began to the end of its last object: a hole between two objects was read over by
its worker, so it holds transaction markers or aborted records and nothing else. Where it began stands in `begins.json`, put once.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError

from domain.log import Position, TopicPartition
from projections.archive import ARCHIVED_TOPICS, RawArchive, said
from projections.errors import StoreUnavailable
from projections.records import RecordBatch

AHEAD = 3  # objects fetched and unpacked while one is being applied; each holds up to a flush of the archive's worker in memory
_BEGINS = "begins.json"
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


@dataclass(frozen=True, slots=True)
class ArchiveObject:
    """An object of one partition: its key, first offset, size in bytes, and when it was put (seconds since 1970)."""

    key: str
    place: TopicPartition
    first: int
    size: int
    put_at: float


class ArchiveReader(RawArchive):
    """The archive of one generation, read from any position."""

    def objects(self, topics: Sequence[str] = ARCHIVED_TOPICS) -> dict[TopicPartition, list[ArchiveObject]]:
        """The objects of each partition in order of offset.

        Raises:
            StoreUnavailable: S3 refuses or does not answer.
        """
        found: dict[TopicPartition, list[ArchiveObject]] = {}
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=self._root, **token)
            for item in page.get("Contents", ()):
                if not item["Key"].endswith(".parquet"):
                    continue
                place, first = self._place(item["Key"])
                if place[0] in topics:
                    thing = ArchiveObject(item["Key"], place, first, int(item["Size"]), item["LastModified"].timestamp())
                    found.setdefault(place, []).append(thing)
            if not page.get("IsTruncated"):
                return found  # keys come in order, offsets are zero-padded
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def end_of(self, last: ArchiveObject) -> int:
        """The offset after an object's last record, from its own metadata.

        Raises:
            StoreUnavailable: S3 refuses or does not answer.
        """
        return self._span(last.key)[1]

    def begins_at(self, kafka_starts: Position) -> Position:
        """Where this generation begins, judged by where Kafka does now: at 0 where Kafka never lost a record, else with its first object.

        Raises:
            StoreUnavailable: S3 refuses or does not answer.
        """
        cut = {place: start for place, start in kafka_starts.items() if start}
        objects = self.objects() if cut else {}
        return {**kafka_starts, **{place: objects[place][0].first for place in cut if place in objects}}

    def mark_beginning(self, position: Position) -> None:
        """Write down once where this generation begins, before its first object; a later call changes nothing.

        Raises:
            StoreUnavailable: S3 refuses or does not answer.
        """
        body = json.dumps({f"{topic}/{partition}": offset for (topic, partition), offset in sorted(position.items())})
        try:
            self._s3.put_object(
                Bucket=self._bucket, Key=self._root + _BEGINS, Body=body.encode(), IfNoneMatch="*", ContentType="application/json"
            )
        except ClientError as error:
            if str(error.response.get("Error", {}).get("Code")) not in _TAKEN:
                raise StoreUnavailable(f"S3: {self._root}{_BEGINS} cannot be written: {said(error)}") from error
        except BotoCoreError as error:
            raise StoreUnavailable(f"S3: {self._root}{_BEGINS} cannot be written: {said(error)}") from error

    def beginning(self) -> Position | None:
        """Where this generation began, none where nobody wrote it down.

        Raises:
            StoreUnavailable: S3 refuses or does not answer.
        """
        try:
            body = self._s3.get_object(Bucket=self._bucket, Key=self._root + _BEGINS)["Body"].read()
        except ClientError as error:
            if str(error.response.get("Error", {}).get("Code")) in _ABSENT:
                return None
            raise StoreUnavailable(f"S3: {self._root}{_BEGINS} cannot be read: {said(error)}") from error
        except BotoCoreError as error:
            raise StoreUnavailable(f"S3: {self._root}{_BEGINS} cannot be read: {said(error)}") from error
        found: dict[str, Any] = json.loads(body)
        return {(name.rpartition("/")[0], int(name.rpartition("/")[2])): int(offset) for name, offset in found.items()}

    def read_between(
        self, objects: Mapping[TopicPartition, Sequence[ArchiveObject]], start: Position, end: Position
    ) -> Iterator[RecordBatch]:
        """Records from `start` up to `end`, object by object; within a partition in order of offset.

        Objects are taken in the order in which they were put, so that the partitions stay abreast of each other as they were live:
        a reader that merges them by seq has to hold little.

        Args:
            objects: of the partitions to read.
            start: the first offset of each partition; absent is 0.
            end: the offset after the last; a partition that is absent is not read.

        Raises:
            StoreUnavailable: S3 refuses or does not answer.
            StoreDisagrees: an object is not what its name says.
        """
        wanted: list[tuple[float, TopicPartition, ArchiveObject]] = []
        for place, found in objects.items():
            put_at = 0.0
            for index, thing in enumerate(found):
                put_at = max(put_at, thing.put_at)  # a store's clock may step back; the offsets may not
                is_passed = index + 1 < len(found) and found[index + 1].first <= start.get(place, 0)
                if thing.first < end.get(place, 0) and not is_passed:
                    wanted.append((put_at, place, thing))
        wanted.sort(key=lambda item: (item[0], item[1], item[2].first))
        with ThreadPoolExecutor(AHEAD) as pool:
            ahead: deque[tuple[TopicPartition, Future[RecordBatch]]] = deque()
            try:
                for _, place, thing in wanted:
                    ahead.append((place, pool.submit(self._load, thing.key, place[0], thing.first)))
                    if len(ahead) >= AHEAD:
                        yield from _within(*ahead.popleft(), start, end)
                while ahead:
                    yield from _within(*ahead.popleft(), start, end)
            finally:
                for _, future in ahead:
                    future.cancel()


def _within(place: TopicPartition, loaded: Future[RecordBatch], start: Position, end: Position) -> Iterator[RecordBatch]:
    batch = loaded.result()
    keep = np.flatnonzero((batch.offsets >= start.get(place, 0)) & (batch.offsets < end[place]))
    if len(keep) == len(batch):
        yield batch
    elif len(keep):
        yield batch.take(keep)
