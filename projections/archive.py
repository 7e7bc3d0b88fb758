"""The raw archive: every record of the event topics as received, in S3, in objects that no second writer can overlap.

Consumes: everything, undecoded, poison included. Idempotent by the object's key, which is topic, partition and first offset: it is
put create-once (`If-None-Match: *`), the object is the commit, and whoever finds the key taken goes on from that object's end.
Owns the folder `<prefix>/g<generation>/`. Rebuild: a new generation is a new folder.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError

from domain.log import Position, TopicPartition
from projections.errors import StoreDisagrees, StoreUnavailable
from projections.failpoints import ENCODED, UPLOADED, reach
from projections.records import HeaderColumn, HeaderPairs, RecordBatch
from schema_registry.byte_column import MOST_OF_BINARY, ByteColumn
from schema_registry.contracts import EVENT_TOPICS, QUARANTINE_EVENTS

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

ARCHIVED_TOPICS = (*EVENT_TOPICS, QUARANTINE_EVENTS)
HEADER = pa.struct([pa.field("name", pa.string()), pa.field("value", pa.binary())])
SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("timestamp_ms", pa.int64()),
        pa.field("key", pa.binary()),
        pa.field("headers", pa.list_(HEADER)),
        pa.field("value", pa.binary()),
    ]
)
UPLOADS = 3  # objects under way at once; more only holds more memory
_NAME, _VALUE = itemgetter(0), itemgetter(1)
_KEY = re.compile(r"(?P<topic>[^/]+)/partition=(?P<partition>\d+)/(?P<first>\d+)\.parquet")
_TOPIC = b"topic"
_BRING_BACK = "Bring the object back from a copy of the bucket; while Kafka has its records, `tidemark rebuild archive` makes a new one"
_REFUSED = {"403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_ABSENT = {"NoSuchBucket", "404"}


class RawArchive:
    """Keeps records in Parquet under `s3://<bucket>/<prefix>/g<generation>/<topic>/partition=<p>/<first offset>.parquet`."""

    name = "archive"
    topics: tuple[str, ...] = ARCHIVED_TOPICS

    def __init__(self, s3: S3Client, bucket: str, generation: int = 1, prefix: str = "raw") -> None:
        self._s3, self._bucket = s3, bucket
        self._root = f"{prefix}/g{generation}/"
        self._ends: dict[TopicPartition, int] = {}
        self._knows_ends = False

    def prepare(self, schemas: Mapping[int, str] | None = None) -> None:
        """Create the bucket when it is missing, and put the schemas by id beside the records: without them nobody reads these.

        Args:
            schemas: schema id → the schema as JSON.

        Raises:
            StoreUnavailable: S3 refuses or does not answer.
        """
        try:
            self._make_bucket()
            for schema_id, text in (schemas or {}).items():
                self._put_schema(f"{self._root}schemas/{schema_id}.json", text)
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"S3: the bucket {self._bucket} cannot be created: {said(error)}") from error

    def load_position(self) -> Position:
        """The end of the last object of each partition, from its own metadata.

        Raises:
            StoreUnavailable: S3 refuses or does not answer.
        """
        last: dict[TopicPartition, str] = {}
        for key in self._keys():
            last[self._place(key)[0]] = key  # keys come in order, offsets are zero-padded
        self._ends = {tp: self._span(key)[1] for tp, key in last.items()}
        self._knows_ends = True
        return dict(self._ends)

    def apply_records(self, batches: Sequence[RecordBatch], before: Position, after: Position) -> None:
        """Put the records of each partition as one object.

        Raises:
            StoreUnavailable: S3 refuses or does not answer.
        """
        if not self._knows_ends:
            self.load_position()
        parts = [
            (batch.topic, partition, table.take(pa.array(np.flatnonzero(batch.partitions == partition))))
            for batch, table in ((batch, _table(batch)) for batch in batches)
            for partition in np.unique(batch.partitions).tolist()
        ]
        # Encoding and sending leave the interpreter's lock, so that one object is encoded while another is on its way.
        with ThreadPoolExecutor(UPLOADS) as pool:
            for done in [pool.submit(self._put, *part) for part in parts]:
                done.result()

    def read(self, topics: Sequence[str] = ARCHIVED_TOPICS) -> Iterator[RecordBatch]:
        """Every record that the archive holds, object by object, in order within a partition.

        Raises:
            StoreUnavailable: S3 refuses or does not answer.
            StoreDisagrees: an object is not what its name says.
        """
        for key in self._keys():
            (topic, _), first = self._place(key)
            if topic in topics:
                yield self._load(key, topic, first)

    def gaps(self) -> list[str]:
        """Objects that do not follow each other: overlaps and objects whose content is not their name's, in words."""
        found, reached = [], dict[TopicPartition, int]()
        for key in self._keys():
            tp, first = self._place(key)
            start, end = self._span(key)
            if start != first or first < reached.get(tp, 0):
                found.append(f"{key}: holds offsets {start} to {end}, expected to begin at {max(first, reached.get(tp, 0))}")
            reached[tp] = end
        return found

    def remove(self) -> int:
        """Delete the whole generation; returns how many objects it had."""
        keys = list(self._keys())
        for at in range(0, len(keys), 1000):
            self._call("delete_objects", Delete={"Objects": [{"Key": key} for key in keys[at : at + 1000]]})
        return len(keys)

    def _make_bucket(self) -> None:
        try:
            self._s3.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            if str(error.response.get("Error", {}).get("Code")) not in _ABSENT:
                raise
            self._s3.create_bucket(Bucket=self._bucket)

    def _put_schema(self, key: str, text: str) -> None:
        try:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=text.encode(), IfNoneMatch="*", ContentType="application/json")
        except ClientError as error:  # it stands there already: schemas never change
            if str(error.response.get("Error", {}).get("Code")) not in _TAKEN:
                raise

    def _put(self, topic: str, partition: int, records: pa.Table) -> None:
        # Every object begins where another ends: after a key was taken, what that object holds is never put again.
        records = _from(records, self._ends.get((topic, partition), 0))
        while len(records):
            first, last = records["offset"][0].as_py(), records["offset"][-1].as_py()
            key = f"{self._root}{topic}/partition={partition:04d}/{first:020d}.parquet"
            body = _encode(records.replace_schema_metadata({_TOPIC: topic.encode()}))
            reach(ENCODED)
            try:
                self._s3.put_object(
                    Bucket=self._bucket, Key=key, Body=body, IfNoneMatch="*", ContentType="application/vnd.apache.parquet",
                    Metadata={"first-offset": str(first), "next-offset": str(last + 1), "records": str(len(records))},
                )  # fmt: skip
                reach(UPLOADED)
                self._ends[(topic, partition)] = last + 1
                return
            except ClientError as error:
                code = str(error.response.get("Error", {}).get("Code"))
                if code not in _TAKEN:
                    raise StoreUnavailable(f"S3: {key} cannot be written: {said(error)}") from error
            except BotoCoreError as error:
                raise StoreUnavailable(f"S3: {key} cannot be written: {said(error)}") from error
            _, end = self._span(key)  # a crash after the put, or another writer: go on from that object's end
            self._ends[(topic, partition)] = end
            records = _from(records, end)

    def _load(self, key: str, topic: str, first: int) -> RecordBatch:
        body = self._call("get_object", Key=key)["Body"].read()
        (_, partition), _ = self._place(key)
        try:
            # Checksums of each page: without them a flipped bit in a value would come back as another value.
            file = pq.ParquetFile(io.BytesIO(body), page_checksum_verification=True)
            named = file.schema_arrow.metadata or {}
            table = file.read().select(SCHEMA.names).cast(SCHEMA)
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise StoreDisagrees(f"archive: {key} cannot be read as Parquet: {error}. {_BRING_BACK}") from error
        holds = named.get(_TOPIC, topic.encode()).decode("utf-8", "replace")  # objects of earlier versions do not say it
        if holds != topic or not bool((table["partition"].to_numpy() == partition).all()):
            raise StoreDisagrees(f"archive: {key} holds records of another partition, written as {holds}. {_BRING_BACK}")
        offsets = table["offset"].to_numpy()
        if not len(offsets) or offsets[0] != first or not bool((np.diff(offsets) > 0).all()):
            raise StoreDisagrees(f"archive: {key} does not begin at offset {first} and rise from there. {_BRING_BACK}")
        return RecordBatch(
            topic,
            table["partition"].to_numpy(),
            table["offset"].to_numpy(),
            table["timestamp_ms"].to_numpy(),
            ByteColumn.of_arrow(table["key"]),
            ByteColumn.of_arrow(table["value"]),
            _header_column(table["headers"].combine_chunks()),
        )

    def _keys(self) -> Iterator[str]:
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=self._root, **token)
            for item in page.get("Contents", ()):
                if item["Key"].endswith(".parquet"):
                    yield item["Key"]
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _place(self, key: str) -> tuple[TopicPartition, int]:
        found = _KEY.fullmatch(key.removeprefix(self._root))
        if found is None or found["topic"] not in ARCHIVED_TOPICS:
            raise StoreDisagrees(f"archive: {key} is no object of ours: move it out of {self._root}, which one writer owns")
        return (found["topic"], int(found["partition"])), int(found["first"])

    def _span(self, key: str) -> tuple[int, int]:
        """First offset and the offset after the last, from the object's own metadata."""
        metadata = self._call("head_object", Key=key)["Metadata"]
        try:
            return int(metadata["first-offset"]), int(metadata["next-offset"])
        except (KeyError, ValueError):
            raise StoreDisagrees(
                f"archive: {key} does not say which offsets it holds: it was not put by this archive. {_BRING_BACK}"
            ) from None

    def _call(self, operation: str, **arguments: Any) -> Any:
        try:
            return getattr(self._s3, operation)(Bucket=self._bucket, **arguments)
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"S3: {operation} failed: {said(error)}") from error


def said(error: ClientError | BotoCoreError) -> str:
    """What S3 said, and what to do where it refused whoever asked."""
    refused = isinstance(error, ClientError) and (
        str(error.response.get("Error", {}).get("Code")) in _REFUSED
        or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 403
    )
    hint = "; S3 is there and refuses these credentials: check TIDEMARK_S3__ACCESS_KEY, its secret and what the bucket's policy allows it"
    return f"{error}{hint if refused else ''}"


def _from(records: pa.Table, offset: int) -> pa.Table:
    """The records from an offset on; they come in order of it."""
    return records.slice(int(np.searchsorted(records["offset"].to_numpy(), offset)))


def _table(batch: RecordBatch) -> pa.Table:
    return pa.Table.from_arrays(
        [
            pa.array(batch.partitions),
            pa.array(batch.offsets),
            pa.array(batch.timestamps_ms),
            _binary(batch.keys),
            _headers(batch.headers),
            _binary(batch.values),
        ],
        schema=SCHEMA,
    )


def _encode(records: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    # Values are unique and dense already: a dictionary would cost time and space, and so would their least and greatest.
    pq.write_table(
        records, out, compression="zstd", compression_level=1, use_dictionary=["headers.list.element.name"],
        write_page_checksum=True, write_statistics=["partition", "offset", "timestamp_ms"],
    )  # fmt: skip
    body: bytes = out.getvalue().to_pybytes()
    return body


def _binary(strings: Sequence[bytes | None]) -> pa.ChunkedArray:
    """As binary values that share the bytes, in more than one piece where they are more than a piece may hold."""
    column = ByteColumn.of(strings)
    if column.size <= MOST_OF_BINARY or len(column) == 1:
        return pa.chunked_array([column.arrow()])
    middle = len(column) // 2
    return pa.chunked_array([*_binary(column[:middle]).chunks, *_binary(column[middle:]).chunks])


def _headers(headers: Sequence[HeaderPairs | None]) -> pa.Array:
    """Headers as list<struct>, built from flat columns: ten times faster than from Python dicts."""
    if isinstance(headers, HeaderColumn):
        found = headers.bounded()
        names = found.names.arrow()
        try:
            texts = names.cast(pa.string())
        except pa.ArrowInvalid:  # a foreign producer's name that is no text
            texts = pa.array([(name or b"").decode("utf-8", "replace") for name in found.names], pa.string())
        return _listed(found.ends.astype(np.int32), texts, found.contents.arrow())
    given = [pairs or () for pairs in headers]
    offsets = np.zeros(len(given) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, given), np.int32, len(given)), out=offsets[1:])
    pairs = list(chain.from_iterable(given))
    return _listed(offsets, pa.array(list(map(_NAME, pairs)), pa.string()), pa.array(list(map(_VALUE, pairs)), pa.binary()))


def _listed(offsets: npt.NDArray[np.int32], names: pa.Array, contents: pa.Array) -> pa.Array:
    items = pa.StructArray.from_arrays([names, contents], fields=list(HEADER))
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=pa.list_(HEADER))


def _header_column(lists: pa.ListArray) -> HeaderColumn:
    items = lists.values
    return HeaderColumn(
        lists.offsets.to_numpy().astype(np.int64),
        ByteColumn.of_arrow(items.field("name").cast(pa.binary())),
        ByteColumn.of_arrow(items.field("value")),
    )
