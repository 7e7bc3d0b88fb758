"""Where the curated tables are registered, and the one place where errors of Iceberg, its catalog and S3 become ours.

The catalog is a database that moves each table's pointer to its metadata by compare-and-set: that is what commits and fences.
Here it is the warehouse's Postgres, in a schema of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from botocore.exceptions import BotoCoreError, ClientError
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchNamespaceError, NoSuchTableError
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from projections.errors import ProjectionError, StoreUnavailable

SCHEMA = "iceberg"
NAMESPACE = "tidemark"
LIVE = "live-table"
"""Property of the namespace: the table that readers should read."""
CONNECT_TIMEOUT_S = 10
_LAYOUT_LOCK = 7_155_318_204  # any number that nobody else locks: two workers may start at once
_URL_FIELDS = {"host", "port", "user", "password", "dbname"}


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Run a step; errors of the catalog and of S3 come out as ours with their cause. A lost race (`CommitFailedException`) passes.

    Raises:
        StoreUnavailable: the catalog or S3 does not answer or refuses; whether a commit took place is then to be read anew.
        ProjectionError: the table was dropped.
    """
    try:
        yield
    except NoSuchTableError as error:
        raise ProjectionError(f"curated: the table was dropped while {what}: {error}") from error
    except (SQLAlchemyError, psycopg.Error) as error:
        raise StoreUnavailable(f"curated: the catalog did not answer while {what}: {str(error)[:500]}") from error
    except (OSError, ClientError, BotoCoreError) as error:
        raise StoreUnavailable(f"curated: S3 did not answer while {what}: {str(error)[:500]}") from error


class CuratedCatalog:
    """The tables of this system's namespace, and which of them is live.

    Args:
        dsn: libpq URI or conninfo of the Postgres that holds the catalog.
        s3_options: Iceberg's own options of the object store (`s3.endpoint`, …).
    """

    def __init__(self, dsn: str, s3_options: Mapping[str, str]) -> None:
        self._dsn, self._s3_options = dsn, dict(s3_options)
        self._opened: SqlCatalog | None = None

    def open(self) -> SqlCatalog:
        """The catalog; its schema, tables and namespace exist afterwards.

        Raises:
            StoreUnavailable: it does not answer.
        """
        if self._opened is None:
            with translated("opening the catalog"), psycopg.connect(make_conninfo(self._dsn, **_timeout(self._dsn))) as connection:
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LAYOUT_LOCK,))
                # Committed on a connection of its own: the catalog below opens others, which must see it.
                with psycopg.connect(self._dsn, autocommit=True) as other:
                    other.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
                found = SqlCatalog(NAMESPACE, uri=_url(self._dsn), pool_pre_ping="true", **self._s3_options)
                with suppress(NamespaceAlreadyExistsError):
                    found.create_namespace(NAMESPACE)
            self._opened = found
        return self._opened

    def exists(self) -> bool:
        """Whether any curated table was ever made here; makes nothing itself.

        Raises:
            StoreUnavailable: the catalog does not answer.
        """
        with translated("asking for the catalog"), psycopg.connect(make_conninfo(self._dsn, **_timeout(self._dsn))) as connection:
            row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"{SCHEMA}.iceberg_tables",)).fetchone()
        return bool(row and row[0]) and bool(self.tables())

    def tables(self) -> list[str]:
        """Names of the tables, live or not.

        Raises:
            StoreUnavailable: the catalog does not answer.
        """
        catalog = self.open()
        with translated("listing tables"):
            return sorted(name for _, name in catalog.list_tables(NAMESPACE))

    def live(self) -> str | None:
        """Name of the table that readers should read, none before the first worker has started.

        Raises:
            StoreUnavailable: the catalog does not answer.
        """
        catalog = self.open()
        with translated("asking for the live table"):
            try:
                return catalog.load_namespace_properties(NAMESPACE).get(LIVE)
            except NoSuchNamespaceError:
                return None

    def publish(self, table: str) -> None:
        """Name the table that readers should read.

        Raises:
            StoreUnavailable: the catalog does not answer.
        """
        catalog = self.open()
        with translated("publishing a table"):
            catalog.update_namespace_properties(NAMESPACE, updates={LIVE: table})

    def close(self) -> None:
        """Give its connections back."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.engine.dispose()


def _timeout(dsn: str) -> dict[str, Any]:
    return {} if "connect_timeout" in conninfo_to_dict(dsn) else {"connect_timeout": CONNECT_TIMEOUT_S}


def _url(dsn: str) -> str:
    """The same server for SQLAlchemy, by the driver that we have, with our schema in the search path."""
    given: dict[str, Any] = {**_timeout(dsn), **conninfo_to_dict(dsn)}
    rest = {name: str(value) for name, value in given.items() if name not in _URL_FIELDS and value is not None}
    rest["options"] = f"{rest.get('options', '')} -csearch_path={SCHEMA}".strip()
    url = URL.create(
        "postgresql+psycopg", given.get("user"), given.get("password"), given.get("host"),
        int(given["port"]) if given.get("port") else None, given.get("dbname"), rest,
    )  # fmt: skip
    return url.render_as_string(hide_password=False)
