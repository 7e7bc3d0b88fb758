"""Generations of a read model in Postgres schemas: which there are, which one readers are shown, swapping and dropping them.

People and tools query `warehouse.*` (`net_flow.*`, …): views onto one generation's schema, `warehouse_g<n>`. A swap makes them anew
in one transaction.
"""

from __future__ import annotations

from adbc_driver_manager.dbapi import Cursor

from projections.errors import ProjectionError
from projections.warehouse import statements as sql
from projections.warehouse.connection import Connect, connector, run, translated

LIVE_SCHEMA = "warehouse"


class SchemaGenerations:
    """Every generation of one read model in one database.

    Args:
        dsn: libpq URI or conninfo, or what opens an ADBC connection.
        live_schema: the schema that readers query; letters, digits and underscores.
    """

    def __init__(self, dsn: str | Connect, live_schema: str) -> None:
        self._connect = connector(dsn) if isinstance(dsn, str) else dsn
        self._schema = live_schema

    def generations(self) -> tuple[int, ...]:
        """The generations that exist, ascending.

        Raises:
            StoreUnavailable: the warehouse does not answer.
        """
        with translated("listing generations"), self._connect() as connection, connection.cursor() as cursor:
            return self._generations(cursor)

    def live(self) -> int | None:
        """The generation that readers are shown, none before the first `publish`.

        Raises:
            StoreUnavailable: the warehouse does not answer.
        """
        with translated("reading the live generation"), self._connect() as connection, connection.cursor() as cursor:
            return self._live(cursor)

    def shows(self, generation: int) -> bool:
        """Whether readers are shown this generation with every table and view that it has.

        Raises:
            StoreUnavailable: the warehouse does not answer.
        """
        with translated("reading the live generation"), self._connect() as connection, connection.cursor() as cursor:
            if self._live(cursor) != generation:
                return False
            shown, there = (
                {relation for (relation,) in run(cursor, sql.LIST_RELATIONS, (schema,))}
                for schema in (self._schema, self._schema_of(generation))
            )
            return there <= shown

    def publish(self, generation: int) -> None:
        """Show this generation to readers, all views at once; for the live one readers see no change.

        Raises:
            ProjectionError: there is no such generation.
            StoreUnavailable: the warehouse does not answer.
        """
        with translated("swapping generations"), self._connect() as connection, connection.cursor() as cursor:
            run(cursor, sql.LOCK_LAYOUT, (sql.LAYOUT_LOCK,))
            if generation not in (found := self._generations(cursor)):
                raise ProjectionError(f"expected one of the {self._schema} generations {list(found)}, found {generation}")
            run(cursor, f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
            for (view,) in run(cursor, sql.LIST_VIEWS, (self._schema,)):
                run(cursor, f'DROP VIEW "{self._schema}"."{view}"')
            schema = self._schema_of(generation)
            for (relation,) in run(cursor, sql.LIST_RELATIONS, (schema,)):
                run(cursor, f'CREATE VIEW "{self._schema}"."{relation}" AS SELECT * FROM "{schema}"."{relation}"')
            run(cursor, f'CREATE VIEW "{self._schema}".live_generation AS SELECT {generation:d} AS generation')
            connection.commit()

    def drop(self, generation: int) -> None:
        """Remove a generation and all it holds; removing one that is not there changes nothing.

        Raises:
            ProjectionError: it is live.
            StoreUnavailable: the warehouse does not answer.
        """
        with translated("dropping a generation"), self._connect() as connection, connection.cursor() as cursor:
            run(cursor, sql.LOCK_LAYOUT, (sql.LAYOUT_LOCK,))
            if self._live(cursor) == generation:
                raise ProjectionError(f"expected a generation that is not live, found {generation}: publish another first")
            run(cursor, f'DROP SCHEMA IF EXISTS "{self._schema_of(generation)}" CASCADE')
            connection.commit()

    def _schema_of(self, generation: int) -> str:
        return f"{self._schema}_g{generation:d}"

    def _generations(self, cursor: Cursor) -> tuple[int, ...]:
        names = (name.removeprefix(f"{self._schema}_g") for (name,) in run(cursor, sql.LIST_SCHEMAS, (f"{self._schema}_g",)))
        return tuple(sorted(int(name) for name in names if name.isdigit()))

    def _live(self, cursor: Cursor) -> int | None:
        (found,) = run(cursor, sql.HAS_LAYOUT, (f"{self._schema}.live_generation",))
        return int(run(cursor, f'SELECT generation FROM "{self._schema}".live_generation')[0][0]) if found[0] else None


class WarehouseGenerations(SchemaGenerations):
    """Those of the warehouse."""

    def __init__(self, dsn: str | Connect) -> None:
        super().__init__(dsn, LIVE_SCHEMA)
