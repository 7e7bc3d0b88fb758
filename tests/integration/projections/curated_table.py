"""A curated table of a test's own: a catalog in a database that is gone afterwards, files in the session's bucket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from pyiceberg.table import Table

from domain.log import Position, Record
from infra.settings import S3Settings
from projections.curated import CuratedCatalog, CuratedProjection, Upkeep
from projections.curated.catalog import NAMESPACE
from projections.curated.upkeep import _key, _named_by
from projections.decoding import decode
from projections.fingerprint import canonical_lines
from projections.records import RecordBatch
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from tests.unit.projections.warehouse.databases import fresh_database

BY_HAND = Upkeep(every_commits=1_000_000)


@dataclass
class OwnTable:
    """Opens writers of one table and looks at what lies in S3."""

    dsn: str
    settings: S3Settings
    s3: Any
    opened: list[CuratedProjection] = field(default_factory=list)

    def writer(self, upkeep: Upkeep = BY_HAND, generation: int = 1) -> CuratedProjection:
        """One more writer, as another process would open it."""
        catalog = CuratedCatalog(self.dsn, self.settings.iceberg_config())
        self.opened.append(CuratedProjection(catalog, self.s3, self.settings.bucket, generation, upkeep))
        return self.opened[-1]

    def table(self, generation: int = 1) -> Table:
        """The table as any reader loads it."""
        return CuratedCatalog(self.dsn, self.settings.iceberg_config()).open().load_table((NAMESPACE, f"transactions_g{generation}"))

    def objects(self) -> set[str]:
        """Keys of every object of the table."""
        prefix = _key(self.table().location(), self.settings.bucket) + "/"
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.settings.bucket, Prefix=prefix)
        return {item["Key"] for page in pages for item in page.get("Contents", ()) if not item["Key"].endswith("/")}

    def needed(self) -> set[str]:
        """Keys of every object that the table's metadata names."""
        table = self.table()
        paths = _named_by(table, table.metadata.snapshots) | {table.metadata_location}
        paths |= {entry.metadata_file for entry in table.metadata.metadata_log}
        return {_key(path, self.settings.bucket) for path in paths}

    def data_files(self) -> int:
        """How many data files the current snapshot has."""
        return len(list(self.table().scan().plan_files()))


@contextmanager
def own_table(dsn: str, settings: S3Settings) -> Iterator[OwnTable]:
    """A catalog and tables that are gone afterwards."""
    s3 = boto3.client("s3", config=Config(signature_version="s3v4"), **settings.client_config())
    with fresh_database(dsn) as own:
        found = OwnTable(own, settings, s3)
        try:
            yield found
        finally:
            for writer in found.opened:
                writer.remove()
                writer.close()


def write(sink: CuratedProjection, catalog: SchemaCatalog, records: Sequence[Record], before: Position | None = None) -> Position:
    """Apply records as one batch; returns the position after it."""
    batch = RecordBatch.of(records)
    events, rejections = decode(ColumnCodec(catalog, sink.reads), [batch])
    assert rejections == []
    after = batch.next_offsets()
    sink.apply(events, {tp: before[tp] for tp in after if tp in before} if before else {}, after)
    return {**(before or {}), **after}


def lines(sink: CuratedProjection) -> list[str]:
    """What the table holds, as canonical text in order."""
    return sorted(line for _, table in sink.read_back() for line in canonical_lines(table))
