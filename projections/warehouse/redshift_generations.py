"""Generations of the warehouse on Redshift: the same four questions as `generations.SchemaGenerations` answers on Postgres.

Redshift's DDL is transactional, so a swap shows all views at once here too. There is no advisory lock: of two who swap at the
same moment one is refused by the catalog, and changes nothing.
"""

from __future__ import annotations

import sqlalchemy as sa

from projections.errors import ProjectionError
from projections.warehouse import redshift_statements as sql
from projections.warehouse.redshift import RedshiftDatabase, run
from projections.warehouse.redshift_connection import redshift_translated
from projections.warehouse.sink import schema_of
from projections.warehouse.tables import warehouse_metadata
from projections.warehouse.views import MATERIALISED_VIEWS, views

LIVE_SCHEMA = "warehouse"
_LIVE = "live_generation"
_SHOWN = frozenset((*warehouse_metadata().tables, *MATERIALISED_VIEWS, *views("redshift")))


class RedshiftGenerations:
    """Every generation in one database. Errors as in `generations.SchemaGenerations`."""

    def __init__(self, database: RedshiftDatabase) -> None:
        self._engine = database.engine

    def generations(self) -> tuple[int, ...]:
        """The generations that exist, ascending."""
        with redshift_translated("listing generations"), self._engine.connect() as connection:
            return _generations(connection)

    def live(self) -> int | None:
        """The generation that `warehouse` shows, none before the first `publish`."""
        with redshift_translated("reading the live generation"), self._engine.connect() as connection:
            return _live(connection)

    def shows(self, generation: int) -> bool:
        """Whether `warehouse` shows this generation with every table and view that it has."""
        with redshift_translated("reading the live generation"), self._engine.connect() as connection:
            shown = _relations(connection, LIVE_SCHEMA)
            return _live(connection) == generation and shown >= _SHOWN

    def publish(self, generation: int) -> None:
        """Make `warehouse` show this generation, all views at once."""
        with redshift_translated("swapping generations"), self._engine.begin() as connection:
            if generation not in (found := _generations(connection)):
                raise ProjectionError(f"expected one of the warehouse generations {list(found)}, found {generation}")
            run(connection, f"CREATE SCHEMA IF NOT EXISTS {LIVE_SCHEMA}")
            for view in sorted(_relations(connection, LIVE_SCHEMA)):
                run(connection, f'DROP VIEW {LIVE_SCHEMA}."{view}"')
            # Named by us and not by the catalog, which also lists what Redshift keeps behind a materialised view.
            for relation in sorted(_SHOWN):
                run(connection, f'CREATE VIEW {LIVE_SCHEMA}."{relation}" AS SELECT * FROM "{schema_of(generation)}"."{relation}"')
            run(connection, f"CREATE VIEW {LIVE_SCHEMA}.{_LIVE} AS SELECT {generation:d} AS generation")

    def drop(self, generation: int) -> None:
        """Remove a generation and all it holds; removing one that is not there changes nothing."""
        with redshift_translated("dropping a generation"), self._engine.begin() as connection:
            if _live(connection) == generation:
                raise ProjectionError(f"expected a generation that is not live, found {generation}: publish another first")
            run(connection, f'DROP SCHEMA IF EXISTS "{schema_of(generation)}" CASCADE')


def _generations(connection: sa.Connection) -> tuple[int, ...]:
    names = (name.removeprefix(f"{LIVE_SCHEMA}_g") for (name,) in run(connection, sql.LIST_SCHEMAS))
    return tuple(sorted(int(name) for name in names if name.isdigit()))


def _live(connection: sa.Connection) -> int | None:
    if _LIVE not in _relations(connection, LIVE_SCHEMA):
        return None
    return int(run(connection, f"SELECT generation FROM {LIVE_SCHEMA}.{_LIVE}")[0][0])


def _relations(connection: sa.Connection, schema: str) -> set[str]:
    return {name for (name,) in run(connection, sql.LIST_RELATIONS, {"schema": schema})}
