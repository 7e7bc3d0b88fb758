"""The raw archive's own decisions, on a store in memory; the real one is in tests/integration and tests/contracts."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError

from domain.log import Record
from projections.archive import RawArchive
from projections.errors import StoreUnavailable
from projections.records import HeaderColumn
from schema_registry.byte_column import ByteColumn
from tests.unit.projections.fakes import T, batch_of, in_columns, record


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


def test_columns_come_back_as_they_went_in_from_whatever_is_cut_of_them(s3: MemoryS3) -> None:
    odd = [
        Record(T, 0, 5, 1, None, None, (("a", None), ("a", b"\xff"), ("", b""))),
        Record(T, 1, 6, 2, b"", b"", ()),
        Record(T, 0, 7, 3, b"\x00", b"x" * 3000, (("\u00e9", b"1"),)),
    ]
    batch = in_columns(batch_of(*rows(0, 5), *odd, *rows(8, 10)))
    archive = archive_on(s3)
    for part in (batch.take(np.arange(0, 6)), batch.take(np.arange(6, 10))):
        archive.apply_records([part], {}, part.next_offsets())
    kept = [found.record(i) for found in archive_on(s3).read() for i in range(len(found))]
    assert sorted(kept, key=lambda r: r.offset) == [*rows(0, 5), *odd, *rows(8, 10)]


def test_a_header_name_that_is_no_text_is_kept_with_a_mark(s3: MemoryS3) -> None:
    headers = HeaderColumn(np.array([0, 1]), ByteColumn.of([b"a\xff"]), ByteColumn.of([b"1"]))
    batch = replace(in_columns(batch_of(record(0))), headers=headers)
    archive_on(s3).apply_records([batch], {}, batch.next_offsets())
    (found,) = archive_on(s3).read()
    assert found.record(0).headers == (("a\ufffd", b"1"),)


def test_more_bytes_than_one_array_holds_go_in_pieces(s3: MemoryS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.archive.MOST_OF_BINARY", 500)
    put(archive_on(s3), *rows(0, 20))
    (found,) = archive_on(s3).read()
    assert [found.record(i) for i in range(len(found))] == rows(0, 20)


class Bucket:
    """A bucket that is there, missing or another's, by the code that a look at it gives."""

    def __init__(self, code: str | None) -> None:
        self.code, self.made = code, list[str]()

    def head_bucket(self, Bucket: str) -> None:
        if self.code is not None:
            raise ClientError({"Error": {"Code": self.code}}, "HeadBucket")

    def create_bucket(self, Bucket: str) -> None:
        self.made.append(Bucket)


@pytest.mark.parametrize(("code", "made"), [(None, []), ("404", ["b"]), ("NoSuchBucket", ["b"])])
def test_a_bucket_is_made_where_it_is_missing_alone(code: str | None, made: list[str]) -> None:
    s3: Any = Bucket(code)
    RawArchive(s3, "b").prepare()
    assert s3.made == made


def test_another_s_bucket_is_no_missing_one() -> None:
    s3: Any = Bucket("403")
    with pytest.raises(StoreUnavailable, match="refuses these credentials"):
        RawArchive(s3, "b").prepare()
    assert s3.made == []
