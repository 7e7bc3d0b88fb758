"""The raw archive on a real object store: every byte comes back, and the key is the lock."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config

from domain.log import Record
from infra.settings import S3Settings
from projections.archive import RawArchive
from projections.errors import StoreDisagrees, StoreUnavailable
from projections.records import RecordBatch
from schema_registry.contracts import CASE_EVENTS, TRANSACTION_EVENTS

T = TRANSACTION_EVENTS


@pytest.fixture(scope="module")
def s3(s3_settings: S3Settings) -> Any:
    return boto3.client("s3", config=Config(signature_version="s3v4", retries={"max_attempts": 1}), **s3_settings.client_config())


@pytest.fixture
def prefix() -> str:
    return f"archive-{uuid4().hex[:8]}"


@pytest.fixture
def archive(s3: Any, s3_settings: S3Settings, prefix: str) -> Iterator[RawArchive]:
    archive = RawArchive(s3, s3_settings.bucket, prefix=prefix)
    archive.prepare()
    yield archive
    archive.remove()


def records(first: int, last: int, partition: int = 0, topic: str = T) -> list[Record]:
    rng = random.Random(first)
    return [Record(topic, partition, o, 5 * o, b"k", rng.randbytes(20), (("seq", bytes(8)),)) for o in range(first, last)]


def put(archive: RawArchive, *found: Record) -> None:
    batch = RecordBatch.of(found)
    archive.apply_records([batch], {}, batch.next_offsets())


def kept(archive: RawArchive) -> list[Record]:
    return [batch.record(i) for batch in archive.read() for i in range(len(batch))]


def test_what_was_received_comes_back_poison_included(archive: RawArchive) -> None:
    odd = [
        Record(T, 0, 0, 1, None, None),
        Record(T, 0, 5, 2, b"", b"", (("a", None), ("a", b"\xff"), ("", b""))),
        Record(T, 0, 6, 3, b"\x00", random.Random(1).randbytes(300_000)),
    ]
    put(archive, *odd)
    assert kept(archive) == odd
    assert archive.load_position() == {(T, 0): 7}


def test_the_position_is_that_of_the_last_object_of_each_partition(archive: RawArchive) -> None:
    put(archive, *records(0, 9), *records(3, 5, partition=11))
    put(archive, *records(9, 12))
    put(archive, *records(0, 1, topic=CASE_EVENTS))
    assert archive.load_position() == {(T, 0): 12, (T, 11): 5, (CASE_EVENTS, 0): 1}
    assert archive.gaps() == []


def test_after_a_crash_behind_the_put_the_same_records_are_not_put_again(
    s3: Any, s3_settings: S3Settings, archive: RawArchive, prefix: str
) -> None:
    put(archive, *records(0, 10))
    again = RawArchive(s3, s3_settings.bucket, prefix=prefix)
    put(again, *records(0, 10), *records(10, 14))
    assert [r.offset for r in kept(again)] == list(range(14))
    assert again.gaps() == []


@pytest.mark.parametrize("size", [1, 3, 7, 20])
def test_whoever_finds_a_key_taken_goes_on_from_that_objects_end(
    s3: Any, s3_settings: S3Settings, archive: RawArchive, prefix: str, size: int
) -> None:
    for first, last in ((0, 4), (4, 13)):
        put(archive, *records(first, last))
    behind = RawArchive(s3, s3_settings.bucket, prefix=prefix)
    for first in range(0, 20, size):
        put(behind, *records(first, min(20, first + size)))
    assert sorted(r.offset for r in kept(behind)) == list(range(20))
    assert behind.gaps() == []


def test_overlaps_are_named(s3: Any, s3_settings: S3Settings, archive: RawArchive, prefix: str) -> None:
    put(archive, *records(0, 10))
    name = f"{prefix}/g1/{T}/partition=0000/"
    body = s3.get_object(Bucket=s3_settings.bucket, Key=f"{name}{0:020d}.parquet")["Body"].read()
    metadata = {"first-offset": "5", "next-offset": "15", "records": "10"}
    s3.put_object(Bucket=s3_settings.bucket, Key=f"{name}{5:020d}.parquet", Body=body, Metadata=metadata)
    (said,) = archive.gaps()
    assert "holds offsets 5 to 15, expected to begin at 10" in said
    with pytest.raises(StoreDisagrees, match="does not begin at offset 5"):
        kept(archive)


def test_an_object_that_is_no_parquet_is_named(s3: Any, s3_settings: S3Settings, archive: RawArchive, prefix: str) -> None:
    key = f"{prefix}/g1/{T}/partition=0000/{0:020d}.parquet"
    s3.put_object(Bucket=s3_settings.bucket, Key=key, Body=b"<html>", Metadata={"first-offset": "0", "next-offset": "1"})
    with pytest.raises(StoreDisagrees, match=f"{key} cannot be read as Parquet"):
        kept(archive)


def test_a_store_that_is_away_or_refuses_says_so(s3_settings: S3Settings) -> None:
    options = {**s3_settings.client_config(), "endpoint_url": "http://127.0.0.1:1"}
    away = boto3.client("s3", config=Config(retries={"max_attempts": 1}, connect_timeout=1), **options)
    with pytest.raises(StoreUnavailable, match="S3: list_objects_v2 failed"):
        RawArchive(away, s3_settings.bucket).load_position()
    wrong = {**s3_settings.client_config(), "aws_secret_access_key": "wrong"}
    refused = boto3.client("s3", config=Config(signature_version="s3v4", retries={"max_attempts": 1}), **wrong)
    with pytest.raises(StoreUnavailable):
        put(RawArchive(refused, s3_settings.bucket), *records(0, 1))


def test_generations_do_not_see_each_other(s3: Any, s3_settings: S3Settings, archive: RawArchive, prefix: str) -> None:
    put(archive, *records(0, 3))
    second = RawArchive(s3, s3_settings.bucket, generation=2, prefix=prefix)
    assert second.load_position() == {}
    put(second, *records(0, 2))
    assert second.remove() == 1
    assert len(kept(archive)) == 3
