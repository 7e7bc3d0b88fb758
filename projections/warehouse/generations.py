"""Generations of the warehouse: which there are, which one the schema `warehouse` shows, swapping and dropping them.

People and tools query `warehouse.*`: views onto one generation's schema. A swap makes them anew in one transaction.
"""

from __future__ import annotations

from adbc_driver_manager.dbapi import Cursor

from projections.errors import ProjectionError
from projections.warehouse import statements as sql
from projections.warehouse.connection import Connect, connector, run, translated
from projections.warehouse.redshift import RedshiftLoader
from projections.warehouse.redshift_generations import RedshiftGenerations
from projections.warehouse.sink import schema_of

LIVE_SCHEMA = "warehouse"


class WarehouseGenerations:
    """Every generation in one database.

    Args:
        dsn: libpq URI or conninfo, or what opens an ADBC connection.
    """

    def __init__(self, dsn: str | Connect) -> None:
        self._connect = connector(dsn) if isinstance(dsn, str) else dsn

    def generations(self) -> tuple[int, ...]:
        """The generations that exist, ascending.

        Raises:
            StoreUnavailable: the warehouse does not answer.
        """
        with translated("listing generations"), self._connect() as connection, connection.cursor() as cursor:
            return _generations(cursor)

    def live(self) -> int | None:
        """The generation that `warehouse` shows, none before the first `publish`.

        Raises:
            StoreUnavailable: the warehouse does not answer.
        """
        with translated("reading the live generation"), self._connect() as connection, connection.cursor() as cursor:
            return _live(cursor)

    def publish(self, generation: int) -> None:
        """Make `warehouse` show this generation, all views at once; for the live one readers see no change.

        Raises:
            ProjectionError: there is no such generation.
            StoreUnavailable: the warehouse does not answer.
        """
        with translated("swapping generations"), self._connect() as connection, connection.cursor() as cursor:
            run(cursor, sql.LOCK_LAYOUT, (sql.LAYOUT_LOCK,))
            if generation not in (found := _generations(cursor)):
                raise ProjectionError(f"expected one of the warehouse generations {list(found)}, found {generation}")
            run(cursor, f"CREATE SCHEMA IF NOT EXISTS {LIVE_SCHEMA}")
            for (view,) in run(cursor, sql.LIST_VIEWS, (LIVE_SCHEMA,)):
                run(cursor, f'DROP VIEW {LIVE_SCHEMA}."{view}"')
            schema = schema_of(generation)
            for (relation,) in run(cursor, sql.LIST_RELATIONS, (schema,)):
                run(cursor, f'CREATE VIEW {LIVE_SCHEMA}."{relation}" AS SELECT * FROM "{schema}"."{relation}"')
            run(cursor, f"CREATE VIEW {LIVE_SCHEMA}.live_generation AS SELECT {generation:d} AS generation")
            connection.commit()

    def drop(self, generation: int) -> None:
        """Remove a generation and all it holds; removing one that is not there changes nothing.

        Raises:
            ProjectionError: it is live.
            StoreUnavailable: the warehouse does not answer.
        """
        with translated("dropping a generation"), self._connect() as connection, connection.cursor() as cursor:
            run(cursor, sql.LOCK_LAYOUT, (sql.LAYOUT_LOCK,))
            if _live(cursor) == generation:
                raise ProjectionError(f"expected a generation that is not live, found {generation}: publish another first")
            run(cursor, f'DROP SCHEMA IF EXISTS "{schema_of(generation)}" CASCADE')
            connection.commit()


def warehouse_generations(store: str | Connect | RedshiftLoader) -> WarehouseGenerations | RedshiftGenerations:
    """The generations in this database, whichever it is.

    Args:
        store: libpq URI or conninfo or what opens an ADBC connection, for Postgres; else Redshift's loader.
    """
    return RedshiftGenerations(store) if isinstance(store, RedshiftLoader) else WarehouseGenerations(store)


def _generations(cursor: Cursor) -> tuple[int, ...]:
    names = (name.removeprefix(f"{LIVE_SCHEMA}_g") for (name,) in run(cursor, sql.LIST_SCHEMAS))
    return tuple(sorted(int(name) for name in names if name.isdigit()))


def _live(cursor: Cursor) -> int | None:
    (found,) = run(cursor, sql.HAS_LAYOUT, (f"{LIVE_SCHEMA}.live_generation",))
    return int(run(cursor, sql.LIVE_GENERATION)[0][0]) if found[0] else None
