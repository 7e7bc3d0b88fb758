"""Large values of the quarantine in S3: put create-once under their place and hash, so that an address always means the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from domain.log import NewRecord, Position
from infra.kafka.producer import PlainProducer
from projections.errors import StoreUnavailable
from projections.quarantine import PayloadStore, offloaded
from schema_registry.record_codec import RecordCodec

if TYPE_CHECKING:
    from infra.kafka.transactions import KafkaTransactions
    from projections.work import Append, TransactionalLog

PREFIX = "quarantine/"
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_GONE = {"NoSuchKey", "NoSuchBucket", "404"}


class S3Payloads:
    """`projections.quarantine.PayloadStore` in a bucket, which is made when it is missing."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3, self._bucket = s3, bucket

    def put(self, name: str, payload: bytes) -> str:
        """See `projections.quarantine.PayloadStore`: the name holds the hash, so one that is taken holds this value."""
        key = PREFIX + name.replace(":", "_")
        try:
            try:
                self._put(key, payload)
            except ClientError as error:
                # Asked for only when it is missing: who may put an object here need not be one who may list or make buckets.
                if error.response["Error"]["Code"] != "NoSuchBucket":
                    raise
                self._s3.create_bucket(Bucket=self._bucket)
                self._put(key, payload)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _TAKEN:
                raise StoreUnavailable(f"S3: a quarantined value of {len(payload)} bytes cannot be kept: {error}") from error
        except BotoCoreError as error:
            raise StoreUnavailable(f"S3: a quarantined value of {len(payload)} bytes cannot be kept: {error}") from error
        return f"s3://{self._bucket}/{key}"

    def _put(self, key: str, payload: bytes) -> None:
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=payload, IfNoneMatch="*")

    def get(self, uri: str) -> bytes | None:
        """See `projections.quarantine.PayloadStore`."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            body: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in _GONE:
                return None
            raise StoreUnavailable(f"S3: {uri} cannot be read: {error}") from error
        except BotoCoreError as error:
            raise StoreUnavailable(f"S3: {uri} cannot be read: {error}") from error
        return body


class QuarantineWriter:
    """`projections.quarantine.QuarantineLog` on Kafka, large values in a store first."""

    def __init__(self, producer: PlainProducer, codec: RecordCodec, store: PayloadStore) -> None:
        self._producer, self._codec, self._store = producer, codec, store

    def append(self, records: list[NewRecord]) -> None:
        """See `projections.quarantine.QuarantineLog`.

        Raises:
            StoreUnavailable: a large value cannot be kept; nothing was appended.
            LogError: Kafka does not answer.
        """
        self._producer.append(offloaded(self._codec, records, self._store))


class QuarantiningTransactions:
    """A transactional log that puts large values of quarantined records into a store before the transaction that names them."""

    def __init__(self, log: KafkaTransactions, codec: RecordCodec, store: PayloadStore) -> None:
        self._log: TransactionalLog = log
        self._codec, self._store = codec, store

    def load_position(self) -> Position:
        """See `projections.work.TransactionalLog`."""
        return self._log.load_position()

    def commit(self, appends: Sequence[Append], records: Sequence[NewRecord], position: Position) -> None:
        """See `projections.work.TransactionalLog`.

        Raises:
            StoreUnavailable: a large value cannot be kept; nothing was appended.
        """
        self._log.commit(appends, offloaded(self._codec, records, self._store), position)
