"""A warehouse on the stand-in for Redshift, in a database and below an S3 prefix of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import boto3
from botocore.config import Config
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import URL

from infra.settings import S3Settings
from projections.warehouse.redshift import RedshiftDatabase
from projections.warehouse.redshift_sink import RedshiftWarehouse
from tests.integration.projections.redshift_dialect import prepare
from tests.integration.projections.redshift_proxy import RedshiftProxy, running
from tests.unit.projections.warehouse.databases import fresh_database

ROLE = "arn:aws:iam::123456789012:role/tidemark-copy"


@dataclass
class RedshiftStore:
    """The proxy, its address for the driver, the Postgres behind it, and where batches are staged."""

    proxy: RedshiftProxy
    dsn: str
    behind: str
    s3: Any
    bucket: str
    prefix: str
    opened: list[RedshiftWarehouse] = field(default_factory=list)

    def database(self, role: str = ROLE) -> RedshiftDatabase:
        return RedshiftDatabase(self.dsn, self.s3, self.bucket, self.prefix, role)

    def warehouse(self, generation: int = 1) -> RedshiftWarehouse:
        self.opened.append(RedshiftWarehouse(self.database(), generation))
        return self.opened[-1]

    def staged(self) -> list[str]:
        """The keys of what is staged now."""
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix).get("Contents", ())]


@contextmanager
def redshift_store(postgres_dsn: str, s3_settings: S3Settings) -> Iterator[RedshiftStore]:
    """An empty one, gone afterwards."""
    s3 = boto3.client("s3", config=Config(signature_version="s3v4"), **s3_settings.client_config())
    with fresh_database(postgres_dsn) as behind:
        prepare(behind)
        at = conninfo_to_dict(behind)
        target = (str(at["host"]), int(at["port"] or 5432))
        with running(RedshiftProxy(target, s3, (ROLE, "default"))) as proxy:
            url = URL.create(
                "redshift+redshift_connector", str(at["user"]), str(at["password"]), "127.0.0.1", proxy.port, str(at["dbname"]),
                {"ssl": "false"},
            )  # fmt: skip
            prefix = f"warehouse-staging-{uuid4().hex}"
            store = RedshiftStore(proxy, url.render_as_string(hide_password=False), behind, s3, s3_settings.bucket, prefix)
            try:
                yield store
            finally:
                for one in store.opened:
                    one.close()
