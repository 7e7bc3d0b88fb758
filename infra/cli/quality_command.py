"""The command that holds the warehouse against expectations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import PROOF, command
from infra.cli.context import Context
from infra.cli.stack_commands import Json


@command("quality", panel=PROOF, examples=["tidemark quality", "tidemark quality --docs pages --json"])
def quality(
    docs: Annotated[Path | None, typer.Option(help="Folder for the pages; by default one in the stack's.", show_default=False)] = None,
    json: Json = False,
) -> int:
    """Hold the warehouse's last rows, and its last whole day, against expectations: rules of rows, and drift from the twenty days
    before. Exit status 1 where one is broken, so that it can be run daily."""
    from infra.composition import NotReady
    from projections.warehouse.expectations import validate_warehouse

    context = Context()
    composition = context.need("kafka", "registry", "warehouse")
    if composition.redshift is not None:
        raise NotReady("the expectations read a Postgres; on Redshift `tidemark verify` and the screens of the sink hold")
    folder = docs or context.given.stack_dir / "report" / "data-docs"
    with output.errors.status("validating"):
        found = validate_warehouse(composition.warehouse_dsn, folder, composition.generations.get("warehouse", 1))
    is_met = all(one.success for one in found)
    if json:
        output.print_json(
            {
                "success": is_met,
                "docs": str(found[0].docs_index) if found else None,
                "suites": [{"suite": one.table, "success": one.success, "failed": list(one.failed)} for one in found],
            }
        )
        return exits.OK if is_met else exits.FAILED
    if not found:
        output.result("The warehouse has no rows yet: nothing to hold against.")
        return exits.OK
    rows = [(one.table, "holds" if one.success else "broken", one.statistics["evaluated_expectations"], len(one.failed)) for one in found]
    output.print_table("", ("suite", "state", "expectations", "broken"), rows, right=("expectations", "broken"))
    for one in found:
        for sentence in one.failed:
            output.result(f"[red]{output.safe(one.table)}[/]: {output.safe(sentence)}")
    output.result(f"Pages: {output.safe(str(found[0].docs_index))}")
    return exits.OK if is_met else exits.FAILED
