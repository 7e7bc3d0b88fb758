"""The raw archive's own decisions, on a store in memory; the real one is in tests/integration and tests/contracts."""

from __future__ import annotations

import io
from typing import Any

import pytest
from botocore.exceptions import ClientError

from domain.log import Record
from projections.archive import RawArchive
from projections.errors import StoreUnavailable
from tests.unit.projections.fakes import T, batch_of, record


class MemoryS3:
    """The five calls of boto3 that the archive makes."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.refusal: str | None = None
        self.page = 2

    def put_object(self, Bucket: str, Key: str, Body: bytes, Metadata: dict[str, str], IfNoneMatch: str, ContentType: str) -> None:
        assert IfNoneMatch == "*"
        code = self.refusal or ("PreconditionFailed" if Key in self.objects else None)
        if code is not None:
            raise ClientError({"Error": {"Code": code}}, "PutObject")
        self.objects[Key] = (Body, Metadata)

    def head_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        return {"Metadata": self.objects[Key][1]}

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        return {"Body": io.BytesIO(self.objects[Key][0])}

    def list_objects_v2(self, Bucket: str, Prefix: str, ContinuationToken: str = "") -> dict[str, Any]:
        keys = [key for key in sorted(self.objects) if key.startswith(Prefix) and key > ContinuationToken]
        part = keys[: self.page]
        more = {"NextContinuationToken": part[-1]} if len(keys) > self.page else {}
        return {"Contents": [{"Key": key} for key in part], "IsTruncated": bool(more), **more}


@pytest.fixture
def s3() -> MemoryS3:
    return MemoryS3()


def archive_on(s3: MemoryS3) -> RawArchive:
    return RawArchive(s3, "bucket")  # type: ignore[arg-type]


def put(archive: RawArchive, *records: Record) -> None:
    batch = batch_of(*records)
    archive.apply_records([batch], {}, batch.next_offsets())


def rows(first: int, last: int, partition: int = 0) -> list[Record]:
    return [record(offset, partition=partition) for offset in range(first, last)]


def test_an_object_is_named_by_topic_partition_and_first_offset(s3: MemoryS3) -> None:
    put(archive_on(s3), *rows(7, 9), *rows(0, 1, partition=12))
    assert sorted(s3.objects) == [f"raw/g1/{T}/partition=0000/{7:020d}.parquet", f"raw/g1/{T}/partition=0012/{0:020d}.parquet"]


def test_many_pages_of_objects_are_read_in_order(s3: MemoryS3) -> None:
    archive = archive_on(s3)
    for offset in range(7):
        put(archive, *rows(offset, offset + 1))
    assert [int(batch.offsets[0]) for batch in archive.read()] == list(range(7))
    assert archive.load_position() == {(T, 0): 7}
    assert archive.gaps() == []


def test_a_writer_that_fell_behind_begins_only_where_an_object_ends(s3: MemoryS3) -> None:
    behind, ahead = archive_on(s3), archive_on(s3)
    behind.load_position()
    put(ahead, *rows(0, 10))
    put(behind, *rows(0, 4))
    put(behind, *rows(4, 14))
    assert [batch.offsets.tolist() for batch in behind.read()] == [list(range(10)), [10, 11, 12, 13]]
    assert behind.gaps() == []


def test_a_refusal_that_is_not_about_the_key_is_an_error_and_nothing_counts_as_written(s3: MemoryS3) -> None:
    archive = archive_on(s3)
    s3.refusal = "AccessDenied"
    with pytest.raises(StoreUnavailable, match=r"cannot be written: .*AccessDenied"):
        put(archive, *rows(0, 2))
    s3.refusal = None
    put(archive, *rows(0, 2))
    assert archive.load_position() == {(T, 0): 2}
