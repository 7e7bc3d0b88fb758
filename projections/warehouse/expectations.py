"""Great Expectations on rows read back from the warehouse: the rules of `rules`, and what only whole batches break.

A broken expectation raises an alarm, it moves no row: single rows were screened before they came in. Data Docs are
written as HTML that needs no network (`offline_docs`). Great Expectations takes ten seconds to import, so it is
imported when first used.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from domain.values import EPOCH, MAX_AHEAD
from projections.warehouse.connection import Connect, connector, run, translated
from projections.warehouse.facts import FACTS
from projections.warehouse.offline_docs import make_offline
from projections.warehouse.rules import RULES, InTime, InUnitInterval, NotNegative, NotNull, OneOf
from projections.warehouse.sink import schema_of
from schema_registry.column_codec import DECIMAL

SAMPLE_ROWS = 100_000  # the last rows to come in: 0.3 s for all expectations
_SITE = "tidemark"


@dataclass(frozen=True, slots=True)
class BatchValidation:
    """What the expectations said of one table: how many held, which did not, and where the pages start."""

    table: str
    success: bool
    statistics: Mapping[str, Any]
    failed: tuple[str, ...]
    docs_index: Path


def validate_warehouse(
    dsn: str | Connect, docs_folder: Path, generation: int = 1, sample_rows: int = SAMPLE_ROWS
) -> tuple[BatchValidation, ...]:
    """Validate the last rows of every fact table that has expectations and rows; one set of pages for all.

    Raises:
        StoreUnavailable: the warehouse does not answer.
        ProjectionError: it refuses, for instance because there is no such generation.
    """
    connect = connector(dsn) if isinstance(dsn, str) else dsn
    samples = {}
    for table in dict.fromkeys(table for table, _ in _expectations_by_table()):
        with translated(f"sampling {table}"), connect() as connection, connection.cursor() as cursor:
            run(cursor, f'SET search_path TO "{schema_of(generation)}"')
            cursor.execute(f"SELECT * FROM {table} ORDER BY ingested_at DESC LIMIT $1", (sample_rows,))
            samples[table] = _exact(cursor.fetch_arrow_table())
    return validate_batches({name: rows for name, rows in samples.items() if rows.num_rows}, docs_folder)


def validate_batches(rows_by_table: Mapping[str, pa.Table], docs_folder: Path) -> tuple[BatchValidation, ...]:
    """Validate rows of fact tables and write their Data Docs into `docs_folder`; pages of an earlier validation go.

    Args:
        rows_by_table: fact table → rows with its columns.
    """
    import great_expectations as gx

    for part in ("validations", "expectations"):
        shutil.rmtree(docs_folder / part, ignore_errors=True)
    docs_folder.mkdir(parents=True, exist_ok=True)
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    for site in context.get_site_names():
        context.delete_data_docs_site(site)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs_folder.resolve())}
    context.add_data_docs_site(
        _SITE,
        {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": store,
        },
    )
    source = context.data_sources.add_pandas("warehouse")
    results = []
    for table, rows in rows_by_table.items():
        suite = context.suites.add(gx.ExpectationSuite(name=table))
        for name, expectation in _expectations_by_table():
            if name == table:
                suite.add_expectation(getattr(gx.expectations, expectation.kind)(**expectation.arguments))
        batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("sample")
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=table, data=batch, suite=suite)
        )  # fmt: skip
        results.append((table, definition.run(batch_parameters={"dataframe": _frame(rows)})))
    context.build_data_docs(site_names=[_SITE])
    index = make_offline(docs_folder, {table: bool(result.success) for table, result in results})
    return tuple(
        BatchValidation(
            table,
            bool(result.success),
            dict(result.statistics),
            tuple(_sentence(one.expectation_config) for one in result.results if not one.success),
            index,
        )
        for table, result in results
    )


@dataclass(frozen=True, slots=True)
class _Expectation:
    kind: str
    arguments: Mapping[str, Any]


def _expectations_by_table() -> Iterator[tuple[str, _Expectation]]:
    """Every rule that Great Expectations can say, and the expectations of whole batches."""
    column_by_field = {(fact.event_type, field): (fact.table, column)
                       for fact in reversed(FACTS) for column, field in fact.fields.items()}  # fmt: skip
    for rule in RULES:
        table, column = column_by_field[rule.event_type, rule.column]
        match rule:
            case NotNull():
                yield table, _Expectation("ExpectColumnValuesToNotBeNull", {"column": column})
            case NotNegative():
                yield table, _Expectation("ExpectColumnValuesToBeBetween", {"column": column, "min_value": 0})
            case OneOf(known=known) if not _is_shared(table):
                yield table, _Expectation("ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(known)})
            case InUnitInterval():
                arguments = {"column": column, "min_value": 0, "max_value": 1}
                yield table, _Expectation("ExpectColumnValuesToBeBetween", arguments)
            case InTime():
                latest = datetime.now(UTC) + MAX_AHEAD
                arguments = {"column": column, "min_value": EPOCH.isoformat(), "max_value": latest.isoformat()}
                yield table, _Expectation("ExpectColumnValuesToBeBetween", arguments)
    yield "fact_transaction", _Expectation("ExpectTableRowCountToBeBetween", {"min_value": 1})
    yield "fact_transaction", _Expectation("ExpectColumnValuesToBeUnique", {"column": "tx_id"})
    yield "fact_transaction", _Expectation("ExpectColumnValuesToBeUnique", {"column": "seq"})


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


def _frame(rows: pa.Table) -> Any:
    """Rows as pandas: amounts as `Decimal`, never as floats."""
    return rows.to_pandas()


def _sentence(config: Any) -> str:
    column = config.kwargs.get("column")
    return f"{config.type} of {column}" if column else str(config.type)
