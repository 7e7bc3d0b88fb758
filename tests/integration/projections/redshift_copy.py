"""COPY as Redshift does it: the manifest and every Parquet file that it names, fetched from S3, as rows for a table."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from botocore.exceptions import ClientError

_COPY = re.compile(
    r"COPY (?P<table>\w+) FROM '(?P<manifest>s3://[^']+)' IAM_ROLE (?P<role>default|'[^']+') FORMAT AS PARQUET MANIFEST\s*", re.IGNORECASE
)


class CopyRefused(Exception):
    """What Redshift would say."""


@dataclass(frozen=True)
class Copy:
    """One COPY; `refused` says why the cluster will not do it."""

    table: str
    manifest: str
    refused: str = ""

    @classmethod
    def parse(cls, statement: str, roles: tuple[str, ...]) -> Copy:
        found = _COPY.fullmatch(statement)
        if found is None:
            return cls("pg_class", "", f"COPY of columnar files does not take: {statement}")
        role = found["role"].strip("'")
        refused = "" if role in roles else f"User is not authorized to assume IAM Role {role}"
        return cls(found["table"], found["manifest"], refused)


def csv_of(copy: Copy, s3: Any) -> Iterator[bytes]:
    """The rows as CSV, null as nothing and every value quoted.

    Raises:
        CopyRefused: S3 has not what was named, or a file is not what Redshift takes.
    """
    if copy.refused:
        raise CopyRefused(copy.refused)
    for entry in json.loads(_fetch(s3, copy.manifest))["entries"]:
        if "content_length" not in entry.get("meta", {}):
            raise CopyRefused(f"Manifest entry without meta.content_length: {entry['url']}")
        body = _fetch(s3, entry["url"])
        if len(body) != entry["meta"]["content_length"]:
            raise CopyRefused(f"S3 object {entry['url']} has {len(body)} bytes, its manifest says {entry['meta']['content_length']}")
        rows = pq.read_table(io.BytesIO(body))
        _check(entry["url"], rows.schema)
        texts = pa.table([column.cast(pa.string()) for column in rows.columns], names=rows.column_names)
        out = io.BytesIO()
        pyarrow.csv.write_csv(texts, out, pyarrow.csv.WriteOptions(include_header=False, quoting_style="all_valid"))
        yield out.getvalue()


def _check(url: str, schema: pa.Schema) -> None:
    for field in schema:
        is_zoned = pa.types.is_timestamp(field.type) and field.type.tz is not None
        if is_zoned or pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
            raise CopyRefused(f"Spectrum Scan Error: file {url} has an incompatible Parquet schema for column {field.name}: {field.type}")


def _fetch(s3: Any, url: str) -> bytes:
    at = urlparse(url)
    try:
        body: bytes = s3.get_object(Bucket=at.netloc, Key=at.path.lstrip("/"))["Body"].read()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        raise CopyRefused(f"S3ServiceException:The specified key does not exist: {url},Status 404,Error {code}") from error
    return body
