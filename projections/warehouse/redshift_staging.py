"""A batch's rows as Parquet files with a manifest in S3, from where Redshift's COPY takes them.

The folder is named by the batch's position, so a retry writes the same objects again. It goes after the commit; what a crash left
goes when the next writer begins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError

from domain.log import Position
from projections.errors import StoreUnavailable

_DELETED_AT_ONCE = 1_000  # keys that one delete request takes


def folder_of(schema: str, before: Position, after: Position) -> str:
    """Where the files of one batch lie: readable by its first partition, distinct by all of them."""
    places = sorted((topic, partition, before.get((topic, partition), 0), offset) for (topic, partition), offset in after.items())
    digest = hashlib.sha256(json.dumps(places).encode()).hexdigest()[:16]
    topic, partition, first, end = places[0] if places else ("nothing", 0, 0, 0)
    return f"{schema}/{topic}-{partition}@{first}-{end}-{digest}"


class StagedFiles:
    """Files below one prefix of a bucket.

    Args:
        s3: boto3 client.
        bucket: bucket in the region of the Redshift database.
        prefix: key prefix that nothing else uses.
    """

    def __init__(self, s3: Any, bucket: str, prefix: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._prefix = prefix.strip("/")

    def write(self, folder: str, pieces_by_table: Mapping[str, Sequence[pa.Table]]) -> dict[str, str]:
        """Write every table's pieces and its manifest; table → the manifest's address.

        Raises:
            StoreUnavailable: S3 refused or did not answer.
        """
        manifests = {}
        for table, pieces in pieces_by_table.items():
            entries = []
            for number, rows in enumerate(pieces):
                body = _parquet(rows)
                url = self._put(f"{folder}/{table}-{number}.parquet", body)
                # COPY of columnar files demands the length.
                entries.append({"url": url, "mandatory": True, "meta": {"content_length": len(body)}})
            manifests[table] = self._put(f"{folder}/{table}.manifest", json.dumps({"entries": entries}).encode())
        return manifests

    def remove(self, folder: str) -> int:
        """Delete what lies in a folder, or below it; returns how many objects it had.

        Raises:
            StoreUnavailable: S3 refused or did not answer.
        """
        try:
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=f"{self._prefix}/{folder}/")
            keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
            for at in range(0, len(keys), _DELETED_AT_ONCE):
                self._s3.delete_objects(Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in keys[at : at + _DELETED_AT_ONCE]]})
        except (BotoCoreError, ClientError) as error:
            raise StoreUnavailable(f"the staged files of the warehouse in S3 could not be deleted: {error}") from error
        return len(keys)

    def _put(self, name: str, body: bytes) -> str:
        key = f"{self._prefix}/{name}"
        try:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
        except (BotoCoreError, ClientError) as error:
            raise StoreUnavailable(f"a batch could not be staged in S3 as {key}: {error}") from error
        return f"s3://{self._bucket}/{key}"


def _parquet(rows: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    # Without Arrow's own schema and with the compression that every reader of Parquet knows.
    pq.write_table(rows, out, compression="snappy", store_schema=False)
    body: bytes = out.getvalue().to_pybytes()
    return body
