"""Reading the live warehouse as people and dashboards do: one read-only snapshot of `warehouse.*`, the same SQL for both dialects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGDialect

from projections.warehouse import statements as sql
from projections.warehouse.connection import Connect, connector, translated
from projections.warehouse.connection import run as run_here
from projections.warehouse.generations import LIVE_SCHEMA

if TYPE_CHECKING:
    from projections.warehouse.redshift import RedshiftDatabase

_NOTHING: Mapping[str, Any] = {}
_USE_UTC = "SET timezone TO 'UTC'"


class Select(Protocol):
    """Runs one SELECT whose values are named `:like_this`; its rows. Times are UTC; cast amounts to text, so that they stay exact.

    Raises:
        StoreUnavailable: the warehouse does not answer.
        ProjectionError: it refuses.
    """

    def __call__(self, statement: str, values: Mapping[str, Any] = _NOTHING) -> list[tuple[Any, ...]]: ...


@contextmanager
def reading(warehouse: str | Connect | RedshiftDatabase) -> Iterator[Select]:
    """What reads `warehouse.*`, every statement as of the same moment.

    Args:
        warehouse: a Postgres by its libpq URI or conninfo, or what opens an ADBC connection to one; else a Redshift.

    Raises:
        StoreUnavailable: the warehouse does not answer.
        ProjectionError: it refuses.
    """
    if isinstance(warehouse, str) or callable(warehouse):
        with _reading_postgres(connector(warehouse) if isinstance(warehouse, str) else warehouse) as select:
            yield select
    else:
        with _reading_redshift(warehouse) as select:
            yield select


@contextmanager
def _reading_postgres(connect: Connect) -> Iterator[Select]:
    with translated("reading the warehouse"), connect() as connection, connection.cursor() as cursor:
        run_here(cursor, sql.READ_SNAPSHOT)
        run_here(cursor, _USE_UTC)
        run_here(cursor, f'SET search_path TO "{LIVE_SCHEMA}"')

        def select(statement: str, values: Mapping[str, Any] = _NOTHING) -> list[tuple[Any, ...]]:
            text, names = numbered(statement)
            return _in_utc(run_here(cursor, text, [values[name] for name in names]))

        yield select


@contextmanager
def _reading_redshift(database: RedshiftDatabase) -> Iterator[Select]:
    from projections.warehouse.redshift import run
    from projections.warehouse.redshift_connection import redshift_translated

    with redshift_translated("reading the warehouse"), database.engine.connect() as connection:
        run(connection, _USE_UTC)
        run(connection, f'SET search_path TO "{LIVE_SCHEMA}"')
        yield lambda statement, values=_NOTHING: _in_utc(run(connection, statement, values))


def _in_utc(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same rows, their times with the zone that they are in: Redshift leaves it out where it has cut one down to a day."""
    return [tuple(_utc(value) if isinstance(value, datetime) else value for value in row) for row in rows]


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


@cache
def numbered(statement: str) -> tuple[str, tuple[str, ...]]:
    """A statement with `$1`, `$2`, … for its named values, and their names in that order."""
    dialect = PGDialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
    compiled: Any = sa.text(statement).compile(dialect=dialect)
    return str(compiled), tuple(compiled.positiontup or ())
