"""Great Expectations on rows read back from the warehouse: the rules of `rules`, and what only whole batches break.

A broken expectation raises an alarm, it moves no row: single rows were screened before they came in. Data Docs are
written as HTML that needs no network (`suites`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from domain.values import EPOCH, MAX_AHEAD
from projections.warehouse.connection import Connect, connector, run, translated
from projections.warehouse.drift import drift_suites
from projections.warehouse.facts import FACTS
from projections.warehouse.rules import RULES, InTime, InUnitInterval, NotNegative, NotNull, OneOf
from projections.warehouse.sink import schema_of
from projections.warehouse.suites import BatchValidation, Expectation, Suite, validate
from schema_registry.column_codec import DECIMAL

SAMPLE_ROWS = 100_000  # the last rows to come in: 0.3 s for all expectations


def validate_warehouse(
    dsn: str | Connect, docs_folder: Path, generation: int = 1, sample_rows: int = SAMPLE_ROWS
) -> tuple[BatchValidation, ...]:
    """Validate the last rows of every fact table that has expectations and rows, and the last whole day against those before it
    (`drift`); one set of pages for all.

    Raises:
        StoreUnavailable: the warehouse does not answer.
        ProjectionError: it refuses, for instance because there is no such generation.
    """
    connect = connector(dsn) if isinstance(dsn, str) else dsn
    suites = {}
    for table in dict.fromkeys(table for table, _ in _expectations_by_table()):
        with translated(f"sampling {table}"), connect() as connection, connection.cursor() as cursor:
            run(cursor, f'SET search_path TO "{schema_of(generation)}"')
            cursor.execute(f"SELECT * FROM {table} ORDER BY ingested_at DESC LIMIT $1", (sample_rows,))
            rows = _exact(cursor.fetch_arrow_table())
        if rows.num_rows:
            suites[table] = Suite(rows, [expectation for name, expectation in _expectations_by_table() if name == table])
    with translated("profiling days"), connect() as connection, connection.cursor() as cursor:
        run(cursor, f'SET search_path TO "{schema_of(generation)}"')
        suites |= drift_suites(cursor, datetime.now(UTC))
    return validate(suites, docs_folder)


def _expectations_by_table() -> Iterator[tuple[str, Expectation]]:
    """Every rule that Great Expectations can say, and the expectations of whole batches."""
    column_by_field = {(fact.event_type, field): (fact.table, column)
                       for fact in reversed(FACTS) for column, field in fact.fields.items()}  # fmt: skip
    for rule in RULES:
        table, column = column_by_field[rule.event_type, rule.column]
        match rule:
            case NotNull():
                yield table, Expectation("ExpectColumnValuesToNotBeNull", {"column": column})
            case NotNegative():
                yield table, Expectation("ExpectColumnValuesToBeBetween", {"column": column, "min_value": 0})
            case OneOf(known=known) if not _is_shared(table):
                yield table, Expectation("ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(known)})
            case InUnitInterval():
                arguments = {"column": column, "min_value": 0, "max_value": 1}
                yield table, Expectation("ExpectColumnValuesToBeBetween", arguments)
            case InTime():
                latest = datetime.now(UTC) + MAX_AHEAD
                arguments = {"column": column, "min_value": EPOCH.isoformat(), "max_value": latest.isoformat()}
                yield table, Expectation("ExpectColumnValuesToBeBetween", arguments)
    yield "fact_transaction", Expectation("ExpectTableRowCountToBeBetween", {"min_value": 1})
    yield "fact_transaction", Expectation("ExpectColumnValuesToBeUnique", {"column": "seq"})


def _is_shared(table: str) -> bool:
    """Whether other event types put rows without this rule's column there."""
    return len({fact.event_type for fact in FACTS if fact.table == table}) > 1


def _exact(rows: pa.Table) -> pa.Table:
    """The driver's NUMERIC, text behind an extension type, as decimals."""
    columns = {}
    for name in rows.column_names:
        column = rows[name]
        if isinstance(column.type, pa.BaseExtensionType):
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], pa.string()).cast(DECIMAL)
        columns[name] = column
    return pa.table(columns)
