"""An archive that something has damaged: named, with what to do, and never read as if it were well."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from domain.log import Record
from infra.settings import S3Settings
from projections.archive_reading import ArchiveReader
from projections.errors import StoreDisagrees, StoreUnavailable
from projections.records import RecordBatch
from schema_registry.contracts import CASE_EVENTS, TRANSACTION_EVENTS, WALLET_EVENTS

T = TRANSACTION_EVENTS
FLIPS = 150
WHAT_TO_DO = "Bring the object back from a copy of the bucket"


@pytest.fixture(scope="module")
def s3(s3_settings: S3Settings) -> Any:
    return boto3.client("s3", config=Config(signature_version="s3v4", retries={"max_attempts": 1}), **s3_settings.client_config())


@pytest.fixture
def prefix() -> str:
    return f"bad-{uuid4().hex[:8]}"


@pytest.fixture
def archive(s3: Any, s3_settings: S3Settings, prefix: str) -> Iterator[ArchiveReader]:
    archive = ArchiveReader(s3, s3_settings.bucket, prefix=prefix)
    archive.prepare()
    yield archive
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=s3_settings.bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            s3.delete_object(Bucket=s3_settings.bucket, Key=item["Key"])


def records(first: int, last: int, topic: str = T, partition: int = 0) -> list[Record]:
    rng = random.Random(first)
    return [Record(topic, partition, o, 5 * o, b"k%d" % o, rng.randbytes(20), (("seq", bytes(8)),)) for o in range(first, last)]


def put(archive: ArchiveReader, *found: Record) -> None:
    batch = RecordBatch.of(found)
    archive.apply_records([batch], {}, batch.next_offsets())


def kept(archive: ArchiveReader) -> list[Record]:
    return [batch.record(i) for batch in archive.read() for i in range(len(batch))]


class Objects:
    """The objects of one archive, to be changed behind its back."""

    def __init__(self, s3: Any, bucket: str, prefix: str) -> None:
        self._s3, self._bucket, self._prefix = s3, bucket, prefix

    def key(self, topic: str, first: int, partition: int = 0) -> str:
        return f"{self._prefix}/g1/{topic}/partition={partition:04d}/{first:020d}.parquet"

    def read(self, key: str) -> tuple[bytes, dict[str, str]]:
        found = self._s3.get_object(Bucket=self._bucket, Key=key)
        return found["Body"].read(), found["Metadata"]

    def write(self, key: str, body: bytes, metadata: dict[str, str]) -> None:
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, Metadata=metadata)


@pytest.fixture
def objects(s3: Any, s3_settings: S3Settings, prefix: str) -> Objects:
    return Objects(s3, s3_settings.bucket, prefix)


def test_no_flipped_byte_is_read_as_another_record(archive: ArchiveReader, objects: Objects) -> None:
    put(archive, *records(0, 40))
    well, key = kept(archive), objects.key(T, 0)
    body, metadata = objects.read(key)
    rng, refused = random.Random(4), 0
    for at in rng.sample(range(len(body)), FLIPS):
        objects.write(key, body[:at] + bytes([body[at] ^ (1 << rng.randrange(8))]) + body[at + 1 :], metadata)
        try:
            assert kept(archive) == well, f"byte {at}"
        except StoreDisagrees as error:
            refused += 1
            assert key in str(error) and WHAT_TO_DO in str(error)
    assert refused > FLIPS // 2  # the rest lies in statistics and names of the writer, which no record comes from


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_object_is_named(archive: ArchiveReader, objects: Objects, share: float) -> None:
    put(archive, *records(0, 40))
    key = objects.key(T, 0)
    body, metadata = objects.read(key)
    objects.write(key, body[: int(len(body) * share)], metadata)
    with pytest.raises(StoreDisagrees, match=f"{key} cannot be read as Parquet: .*{WHAT_TO_DO}"):
        kept(archive)


def test_an_object_of_another_topic_is_named(archive: ArchiveReader, objects: Objects) -> None:
    put(archive, *records(0, 3, topic=WALLET_EVENTS))
    key = objects.key(T, 0)
    objects.write(key, *objects.read(objects.key(WALLET_EVENTS, 0)))
    with pytest.raises(StoreDisagrees, match=f"{key} holds records of another partition, written as {WALLET_EVENTS}"):
        list(archive.read([T]))
    assert sum(map(len, archive.read([WALLET_EVENTS]))) == 3


def test_an_object_of_another_partition_is_named(archive: ArchiveReader, objects: Objects) -> None:
    put(archive, *records(0, 3, partition=4))
    key = objects.key(T, 0, partition=1)
    objects.write(key, *objects.read(objects.key(T, 0, partition=4)))
    with pytest.raises(StoreDisagrees, match="holds records of another partition"):
        kept(archive)


@pytest.mark.parametrize("name", ["raw.parquet", f"{T}/partition=x/1.parquet", "other-topic/partition=0000/1.parquet"])
def test_what_somebody_else_put_there_is_named(archive: ArchiveReader, objects: Objects, prefix: str, name: str) -> None:
    put(archive, *records(0, 3))
    objects.write(f"{prefix}/g1/{name}", b"theirs", {})
    with pytest.raises(StoreDisagrees, match=f"{name} is no object of ours: move it out of {prefix}/g1/"):
        archive.load_position()
    with pytest.raises(StoreDisagrees, match="is no object of ours"):
        archive.objects()


def test_an_object_copied_without_its_metadata_is_named(archive: ArchiveReader, objects: Objects) -> None:
    put(archive, *records(0, 3, topic=CASE_EVENTS))
    key = objects.key(CASE_EVENTS, 0)
    objects.write(key, objects.read(key)[0], {})
    with pytest.raises(StoreDisagrees, match=f"{key} does not say which offsets it holds"):
        archive.load_position()


def test_wrong_credentials_are_told_from_a_store_that_is_away_and_nothing_is_written(
    archive: ArchiveReader, s3: Any, s3_settings: S3Settings, prefix: str
) -> None:
    put(archive, *records(0, 3))
    wrong = {**s3_settings.client_config(), "aws_secret_access_key": "wrong"}
    stranger = boto3.client("s3", config=Config(signature_version="s3v4", retries={"max_attempts": 1}), **wrong)
    with pytest.raises(ClientError, match=r"403|Forbidden|SignatureDoesNotMatch"):
        stranger.list_objects_v2(Bucket=s3_settings.bucket)
    refused = ArchiveReader(stranger, s3_settings.bucket, prefix=prefix)
    refused._knows_ends = True  # as a worker whose credentials were taken away while it ran
    for act in (refused.load_position, refused.beginning, lambda: put(refused, *records(3, 6))):
        with pytest.raises(StoreUnavailable, match="refuses these credentials: check TIDEMARK_S3__ACCESS_KEY"):
            act()
    assert kept(archive) == records(0, 3)
