"""`tidemark rebuild scores` and `alerts`: parts of the warehouse that are replayed in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.cli import exits, output
from infra.cli.progress import Track

if TYPE_CHECKING:
    from infra.composition import Composition
    from infra.rebuild_part import PartResult
    from infra.stack import Stack


def rebuild_in_place(composition: Composition, stack: Stack, name: str, *, is_json: bool) -> int:
    """Do it, shown; returns the exit status."""
    from infra.rebuild_part import rebuild_part

    with Track(f"rebuild {name}", "offsets") as track:
        result = rebuild_part(composition, stack, name, track.update)
    if is_json:
        output.print_json(result.as_json())
    else:
        _show(result)
    return exits.OK


def _show(result: PartResult) -> None:
    found = result.repaired
    if result.was_resumed:
        output.result("An interrupted run was gone on with.")
    output.result(
        f"[green]{result.name} of the warehouse, generation {found.generation}[/]: {output.count(found.records)} records applied again in"
        f" {output.count(found.slices)} slices, {output.duration(result.seconds)}; {output.count(found.deleted)} rows deleted,"
        f" {output.count(found.written)} written. `tidemark verify warehouse` proves it."
    )
