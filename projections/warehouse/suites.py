"""Suites of expectations run by Great Expectations over rows, with pages that need no network.

Great Expectations takes ten seconds to import, so it is imported when first used.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from projections.warehouse.offline_docs import make_offline

_SITE = "tidemark"


@dataclass(frozen=True, slots=True)
class Expectation:
    """One of Great Expectations' own, by its class name."""

    kind: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Suite:
    """Rows, and what is expected of them."""

    rows: pa.Table
    expectations: Sequence[Expectation]


@dataclass(frozen=True, slots=True)
class BatchValidation:
    """What the expectations said of one suite: how many held, which did not, and where the pages start."""

    table: str
    success: bool
    statistics: Mapping[str, Any]
    failed: tuple[str, ...]
    docs_index: Path


def validate(suites: Mapping[str, Suite], docs_folder: Path) -> tuple[BatchValidation, ...]:
    """Validate each suite and write Data Docs into `docs_folder`; pages of an earlier validation go.

    Args:
        suites: by name: letters, digits, `_` and `-`, for they name files.
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
    for name, given in suites.items():
        suite = context.suites.add(gx.ExpectationSuite(name=name))
        for expectation in given.expectations:
            suite.add_expectation(getattr(gx.expectations, expectation.kind)(**expectation.arguments))
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("sample")
        definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        # Amounts as `Decimal`, never as floats.
        results.append((name, definition.run(batch_parameters={"dataframe": given.rows.to_pandas()})))
    context.build_data_docs(site_names=[_SITE])
    index = make_offline(docs_folder, {name: bool(result.success) for name, result in results})
    return tuple(
        BatchValidation(
            name,
            bool(result.success),
            dict(result.statistics),
            tuple(_sentence(one) for one in result.results if not one.success),
            index,
        )
        for name, result in results
    )


def _sentence(result: Any) -> str:
    """What was expected of which column, and, of a single row, what was found."""
    config = result.expectation_config
    column = config.kwargs.get("column")
    said = f"{config.type} of {column}" if column else str(config.type)
    found = (result.result or {}).get("partial_unexpected_list") or []
    low, high = config.kwargs.get("min_value"), config.kwargs.get("max_value")
    if len(found) == 1 and (result.result or {}).get("element_count") == 1:
        said += f": expected {low:.6g} to {high:.6g}, found {found[0]:.6g}" if isinstance(low, float) and isinstance(high, float) else ""
    return said
