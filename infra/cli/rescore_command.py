"""The command that scores history again with another model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import MODEL, command
from infra.cli.context import Context
from infra.cli.interruption import until_interrupted
from infra.cli.progress import Track
from infra.cli.stack_commands import Json
from infra.cli.times import milliseconds, time_of

if TYPE_CHECKING:
    from infra.composition import Composition
    from infra.rescore import RescoreResult

EARLIEST = "earliest"


@command(
    "rescore",
    panel=MODEL,
    examples=[
        "tidemark rescore --model m-3f2a91c07b5e --from earliest --dry-run",
        "tidemark rescore --model m-3f2a91c07b5e --from earliest",
        "tidemark rescore --model m-3f2a91c07b5e --from 120000 --until 180000 --json",
        "tidemark rescore --model m-3f2a91c07b5e --from 2026-11-01 --until 2026-11-02T12:00",
    ],
)
def rescore(
    model: Annotated[str, typer.Option(help="Model version to score with; it need not be deployed.")],
    from_: Annotated[
        str,
        typer.Option("--from", help="From this transaction on: a seq, the time (UTC) when it was appended, or `earliest`."),
    ],
    until: Annotated[
        str | None,
        typer.Option(help="Up to this seq or time, which is left out; by default, and at most, what the live scorer has scored."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would read and append; change nothing.")] = False,
    json: Json = False,
) -> int:
    """Score transactions of the past again with a trained model: new events under its version, no alerts. Run again, it goes on."""
    from infra import rescore as work

    composition = Context().need("kafka", "registry", "s3")
    first = _seq(composition, from_, "--from")
    end = None if until is None else _seq(composition, until, "--until")
    if dry_run:
        _show(work.plan(composition, model, first, end), is_dry=True, is_json=json)
        return exits.OK
    with until_interrupted("Stopping after the transactions at hand.") as stop, Track(f"rescore with {model}", "transactions") as track:

        def progress(stage: str, done: int, total: int) -> None:
            track.update(done, total, what=f"{model}: {stage}")

        result = work.rescore(composition, model, first, end, progress=progress, stopped=stop.is_set)
    _show(result, is_dry=False, is_json=json)
    return exits.STOPPED if result.is_stopped else exits.OK


def _seq(composition: Composition, text: str, option: str) -> int:
    from infra.rescore import seq_at

    if text == EARLIEST:
        return 0
    if text.isdecimal():
        return int(text)
    at = time_of(text, f"expected a seq, {EARLIEST} or a time like 2026-11-02T12:00", option)
    return seq_at(composition, milliseconds(at))


def _show(result: RescoreResult, *, is_dry: bool, is_json: bool) -> None:
    if is_json:
        output.print_json(result.as_json())
        return
    name = output.safe(result.model_version)
    span = f"transactions {output.count(result.from_seq)} up to {output.count(result.until_seq)}"
    if is_dry:
        output.result(
            f"{name} would score {output.count(result.left)} {span}; {output.count(result.scored)} have its score."
            f" {output.count(result.replayed)} before them only enter the features. Nothing was changed."
        )
        return
    took = ""
    if result.added and result.seconds:
        took = f" in {output.duration(result.seconds)}, {output.count(result.added / result.seconds)}/s"
    output.result(f"[green]{name} scored {output.count(result.added)}[/] of {span}{took}")
    if result.scored:
        output.result(f"{output.count(result.scored)} had its score before.")
    if result.unreadable:
        output.result(f"[yellow]{output.count(result.unreadable)} could not be read and have none[/] (`tidemark quarantine list`)")
    if result.is_stopped:
        output.result(f"Stopped; {output.count(result.left)} are left. The same command goes on.")
    else:
        output.result("They are on rescore-events, and in the warehouse as fact_rescore.")
