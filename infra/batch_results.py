"""A run's results in S3: Parquet parts by first seq, put create-once, and a manifest that says they are all.

`batch-scores/run_id=<id>/part-<first seq>.parquet` holds the columns of `batch_score.ROWS`. `_manifest.json` is put last, once: a folder
without one is an unfinished run. `_copy.manifest` names the same parts as Redshift's COPY wants them. Readers of such folders (Athena,
Spectrum, Spark) skip names that begin with an underscore.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError

from projections.archive import said
from projections.errors import StoreDisagrees, StoreUnavailable
from projections.failpoints import UPLOADED, reach
from projections.warehouse.batch_score import ROWS

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

PREFIX = "batch-scores"
MANIFEST_FORMAT = 1
_TAKEN = {"PreconditionFailed", "412"}
_BUSY = {"ConditionalRequestConflict", "409"}  # another one is putting it just now
_TRIES = 5
_ABSENT = {"NoSuchKey", "404", "NotFound"}


@dataclass(frozen=True, slots=True)
class Part:
    """One object: the scores of transactions [`first_seq`, `next_seq`), `rows` of them."""

    key: str
    first_seq: int
    next_seq: int
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished run says of itself, and the hash of the object that says it."""

    facts: Mapping[str, Any]
    sha256: str


class ResultFolder:
    """The objects of one run. Every call may raise StoreUnavailable: S3 refuses or does not answer.

    Args:
        run_id: names the run's inputs, so that whoever repeats it finds its objects.
    """

    def __init__(self, s3: S3Client, bucket: str, run_id: str) -> None:
        self._s3, self._bucket, self._root = s3, bucket, f"{PREFIX}/run_id={run_id}/"

    @property
    def manifest_uri(self) -> str:
        """Where the manifest lies, or will."""
        return self._uri("_manifest.json")

    @property
    def copy_manifest_uri(self) -> str:
        """Where the manifest for COPY lies, or will."""
        return self._uri("_copy.manifest")

    def part(self, first_seq: int) -> Part | None:
        """A part that is there already."""
        key = self._part_key(first_seq)
        try:
            found = self._s3.head_object(Bucket=self._bucket, Key=key)
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and _code(error) in _ABSENT:
                return None
            raise StoreUnavailable(f"S3: {key} cannot be looked at: {said(error)}") from error
        given = found["Metadata"]
        try:
            return Part(key, first_seq, int(given["next-seq"]), int(given["rows"]), int(found["ContentLength"]), given["sha256"])
        except (KeyError, ValueError):
            raise StoreDisagrees(f"{key} is no part of ours: move it out of {PREFIX}/, which one writer owns") from None

    def put_part(self, first_seq: int, next_seq: int, rows: pa.Table) -> Part:
        """Put a part, or find the one that somebody has put meanwhile: the same inputs give the same rows."""
        out = pa.BufferOutputStream()
        # As the warehouse's own staged files: what every reader of Parquet knows, Redshift's COPY too.
        pq.write_table(rows, out, compression="snappy", store_schema=False)
        body: bytes = out.getvalue().to_pybytes()
        part = Part(self._part_key(first_seq), first_seq, next_seq, rows.num_rows, len(body), hashlib.sha256(body).hexdigest())
        given = {"next-seq": str(next_seq), "rows": str(rows.num_rows), "sha256": part.sha256}
        if not self._put(part.key, body, "application/vnd.apache.parquet", given):
            found = self.part(first_seq)
            assert found is not None
            return found
        reach(UPLOADED)
        return part

    def manifest(self) -> Manifest | None:
        """The manifest, none while the run is not finished."""
        body = self._get(f"{self._root}_manifest.json")
        return None if body is None else Manifest(json.loads(body), hashlib.sha256(body).hexdigest())

    def put_manifest(self, facts: Mapping[str, Any], parts: Sequence[Part]) -> Manifest:
        """Finish the run; the manifest as it stands there afterwards, which somebody else may have put first."""
        entries = [{"url": self._uri_of(p.key), "mandatory": True, "meta": {"content_length": p.size}} for p in parts]
        self._put(f"{self._root}_copy.manifest", json.dumps({"entries": entries}).encode(), "application/json", {})
        found = {"format": MANIFEST_FORMAT, **facts, "scored": sum(p.rows for p in parts), "parts": [asdict(p) for p in parts]}
        self._put(f"{self._root}_manifest.json", (json.dumps(found, indent=1) + "\n").encode(), "application/json", {})
        stored = self.manifest()
        assert stored is not None
        return stored

    def rows(self, manifest: Manifest) -> Iterator[pa.Table]:
        """The rows of every part that a manifest names.

        Raises:
            StoreDisagrees: a part is gone or is not the one that was put.
        """
        for part in manifest.facts["parts"]:
            body = self._get(part["key"])
            if body is None or hashlib.sha256(body).hexdigest() != part["sha256"]:
                state = "gone" if body is None else "not the object that was put"
                raise StoreDisagrees(
                    f"{part['key']} is {state}: bring it back from a copy of the bucket, or delete the folder {self._root} and score again"
                )
            yield pq.read_table(io.BytesIO(body)).select(ROWS.names).cast(ROWS)

    def _part_key(self, first_seq: int) -> str:
        return f"{self._root}part-{first_seq:020d}.parquet"

    def _uri(self, name: str) -> str:
        return self._uri_of(self._root + name)

    def _uri_of(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    def _get(self, key: str) -> bytes | None:
        try:
            body: bytes = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            return body
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and _code(error) in _ABSENT:
                return None
            raise StoreUnavailable(f"S3: {key} cannot be read: {said(error)}") from error

    def _put(self, key: str, body: bytes, content_type: str, given: dict[str, str]) -> bool:
        """Put an object that is not there yet; false where it is."""
        for attempt in range(1, _TRIES + 1):
            try:
                self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, IfNoneMatch="*", ContentType=content_type, Metadata=given)
                break
            except (ClientError, BotoCoreError) as error:
                code = _code(error) if isinstance(error, ClientError) else ""
                if code in _TAKEN:
                    return False
                if code not in _BUSY or attempt == _TRIES:
                    raise StoreUnavailable(f"S3: {key} cannot be written: {said(error)}") from error
                time.sleep(0.2 * attempt)
        return True


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code"))
