"""`tidemark score --from`: a batch scored beside the live endpoint, its progress and its result in words."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from infra.cli import exits, output
from infra.cli.context import Context
from infra.cli.interruption import until_interrupted
from infra.cli.progress import Track
from infra.cli.times import bound_of

if TYPE_CHECKING:
    from infra.batch_score import BatchResult


class BatchSource(StrEnum):
    """What transactions are read from."""

    warehouse = "warehouse"
    s3 = "s3"


class BatchTarget(StrEnum):
    """Where results go."""

    warehouse = "warehouse"
    s3 = "s3"


def score_batch(from_: BatchSource, since: str, until: str | None, model: str | None, to: BatchTarget, *, is_json: bool) -> int:
    """Score, and say what became of it.

    Raises:
        typer.BadParameter: a bound is neither a seq nor a time.
    """
    from infra import batch_score as work

    first = bound_of(since, "--since")
    end = None if until is None else bound_of(until, "--until")
    uses_warehouse = from_ is BatchSource.warehouse or to is BatchTarget.warehouse
    composition = Context().need("kafka", "registry", "s3", *(("postgres",) if uses_warehouse else ()))
    with until_interrupted("Stopping after the transactions at hand.") as stop, Track("batch scoring", "transactions") as track:

        def progress(stage: str, done: int, total: int) -> None:
            track.update(done, total or None, what=stage)

        result = work.batch_score(
            composition, from_.value, model_version=model, since=first, until=end, loads=to is BatchTarget.warehouse,
            progress=progress, stopped=stop.is_set,
        )  # fmt: skip
    if is_json:
        output.print_json(result.as_json())
    else:
        _show(result, to)
    return exits.STOPPED if result.is_stopped else exits.OK


def _show(result: BatchResult, to: BatchTarget) -> None:
    name = output.safe(result.model_version)
    span = f"transactions {output.count(result.from_seq)} up to {output.count(result.until_seq)} of the {result.source}"
    if result.is_stopped:
        again = f"tidemark score --from {result.source} --model {name} --since {result.from_seq} --until {result.until_seq}"
        again += f" --to {to.value}" if to is not BatchTarget.warehouse else ""
        output.result(f"Stopped; {output.count(result.added)} of {span} were scored, whole parts are kept. This goes on:")
        output.result(f"  {again}")
        return
    took = f" in {output.duration(result.seconds)}" if result.added else " before: nothing to do"
    output.result(f"[green]{name} scored {output.count(result.scored)}[/], {span}{took}")
    if result.unreadable:
        output.result(f"[yellow]{output.count(result.unreadable)} could not be read and have none[/] (`tidemark quarantine list`)")
    if result.waiting:
        output.result(f"{output.count(result.waiting)} behind them were left out: one before them has not come yet")
    output.result(f"run       {result.run_id}")
    output.result(f"manifest  {output.safe(result.manifest_uri)}")
    if result.is_loaded:
        when = "" if result.is_new else ", where it was before"
        output.result(f"table     batch_scoring.batch_score{when}")
