"""The warehouse's layout as SQL text for either dialect."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy_redshift.dialect import RedshiftDialect

from projections.warehouse.tables import warehouse_metadata
from projections.warehouse.views import MATERIALISED_VIEWS, DialectName, views


def ddl(dialect: DialectName) -> str:
    """The script that creates one generation's tables and views in the current schema.

    Args:
        dialect: `postgresql` (with indexes) or `redshift` (with distribution keys, sort keys and encodings).

    Raises:
        ValueError: another dialect.
    """
    return ";\n\n".join(statements(dialect)) + ";\n"


def statements(dialect: DialectName) -> Iterator[str]:
    """The same, statement by statement.

    Raises:
        ValueError: another dialect.
    """
    compiler = _compiler(dialect)
    metadata = warehouse_metadata()
    for table in metadata.tables.values():
        yield str(CreateTable(table).compile(dialect=compiler)).strip()
        if dialect == "postgresql":
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                yield str(CreateIndex(index).compile(dialect=compiler)).strip()
    for name, (query, keys) in MATERIALISED_VIEWS.items():
        options = " AUTO REFRESH NO" if dialect == "redshift" else ""
        yield f"CREATE MATERIALIZED VIEW {name}{options} AS{query.rstrip()}"
        if dialect == "postgresql":  # refreshing beside readers needs a unique key
            yield f"CREATE UNIQUE INDEX uq_{name} ON {name} ({', '.join(keys)})"
    for name, query in views(dialect).items():
        yield _create_view(name, query)


def create_table(name: str, dialect: DialectName) -> str:
    """The statement that makes one table in the current schema.

    Raises:
        ValueError: another dialect.
        KeyError: no such table.
    """
    return str(CreateTable(warehouse_metadata().tables[name]).compile(dialect=_compiler(dialect))).strip()


def create_view(name: str, dialect: DialectName) -> str:
    """The statement that makes one plain view in the current schema.

    Raises:
        ValueError: another dialect.
        KeyError: no such view.
    """
    return _create_view(name, views(dialect)[name])


def create_index(name: str) -> str:
    """The statement that makes one index of Postgres in the current schema.

    Raises:
        KeyError: no such index.
    """
    indexes = {str(index.name): index for table in warehouse_metadata().tables.values() for index in table.indexes}
    return str(CreateIndex(indexes[name]).compile(dialect=_compiler("postgresql"))).strip()


def _create_view(name: str, query: str) -> str:
    return f"CREATE VIEW {name} AS{query.rstrip()}"


def _compiler(dialect: str) -> Dialect:
    if dialect == "postgresql":
        postgres: Dialect = PGDialect()  # type: ignore[no-untyped-call]
        return postgres
    if dialect == "redshift":
        redshift: Dialect = RedshiftDialect()
        return redshift
    raise ValueError(f"expected the dialect redshift or postgresql, found {dialect!r}")
