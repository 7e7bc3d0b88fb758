"""The command that makes a reactor send a range of its effects again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import PROOF, command
from infra.cli.context import Context
from infra.cli.interruption import until_interrupted
from infra.cli.offsets import offsets_of
from infra.cli.progress import Track
from infra.cli.stack_commands import Json
from infra.cli.times import milliseconds, time_of

if TYPE_CHECKING:
    from domain.log import Position
    from infra.composition import Composition
    from infra.resend import ResendResult

EARLIEST = "earliest"
_EXPECTED = f"expected {EARLIEST}, a seq, a time like 2026-11-02T12:00 or a .json file"


@command(
    "resend",
    panel=PROOF,
    examples=[
        "tidemark resend notifier --from earliest --dry-run",
        "tidemark resend notifier --from 2026-11-01 --until 2026-11-02T12:00",
        "tidemark resend notifier --from 120000 --until 180000 --json",
        "tidemark resend notifier --from positions.json",
    ],
)
def resend(
    name: Annotated[str, typer.Argument(help="Reactor: notifier.")],
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            help="From here on: `earliest`, the seq of the alerts' transactions, a time (UTC) when records were appended, or a .json"
            ' file of offsets, {"case-events/0": 1200, …}; partitions that it does not name are left out.',
        ),
    ],
    until: Annotated[
        str | None, typer.Option(help="Up to this seq, time or file of offsets, which is left out; by default the log's end as it is now.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what it would send, and how much of it for the first time.")] = False,
    json: Json = False,
) -> int:
    """Send a reactor's messages of a range again, each with the effect_id of the first time: receivers get them twice.

    The live worker goes on, and its position stays. Run it again to go on after an interruption. A rebuild never sends anything.
    """
    from domain.errors import InvalidValue
    from infra import resend as work
    from projections.errors import StoreUnavailable

    if name not in work.REACTORS:
        raise typer.BadParameter(f"expected {', '.join(work.REACTORS)}, found {name!r}", param_hint="NAME")
    composition = Context().need("kafka", "registry", *(() if dry_run else ("aws",)))
    topics = composition.reactor(name).topics
    start = _position(composition, topics, from_, "--from")
    end = None if until is None else _position(composition, topics, until, "--until")
    try:
        if dry_run:
            _show(work.plan(composition, name, start, end), is_dry=True, is_json=json)
            return exits.OK
        output.say(
            f"[yellow]Receivers of {name} get the messages of this range again, each with the effect_id of the first time:"
            " whoever does not look at it acts twice.[/]"
        )
        with until_interrupted("Stopping after the messages at hand.") as stop, Track(f"resend {name}", "offsets") as track:
            result = work.resend(composition, name, start, end, progress=track.update, stopped=stop.is_set)
    except InvalidValue as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.field}") from None
    except StoreUnavailable:
        output.say("What was sent is noted: the same command goes on from there.")
        raise
    _show(result, is_dry=False, is_json=json)
    return exits.STOPPED if result.is_stopped else exits.OK


def _position(composition: Composition, topics: tuple[str, ...], text: str, option: str) -> Position:
    from infra.repair import position_at
    from infra.resend import position_of_seq

    if text == EARLIEST:
        return {}
    if text.isdecimal():
        return position_of_seq(composition, int(text))
    if text.endswith(".json"):
        given = offsets_of(Path(text))
        # Partitions that are not named: from their end on, up to their beginning.
        return {**composition.log.ends(topics), **given} if option == "--from" else given
    return position_at(composition, topics, milliseconds(time_of(text, _EXPECTED, option)))


def _show(result: ResendResult, *, is_dry: bool, is_json: bool) -> None:
    if is_json:
        output.print_json(result.as_json())
        return
    before = result.effects - result.first_time
    known = f"{output.count(before)} of them sent before, {output.count(result.first_time)} for the first time"
    if is_dry:
        rest = " of what an interrupted run has left" if result.was_resumed else ""
        output.result(
            f"{result.name} would send {output.count(result.effects)} messages{rest}, {known}, from {output.count(result.records)}"
            " records. Nothing was sent."
        )
    else:
        if result.was_resumed:
            output.result("It went on with a run that was interrupted.")
        output.result(
            f"[green]{result.name} sent {output.count(result.effects)} messages[/], {known}, from {output.count(result.records)} records,"
            f" {output.duration(result.seconds)}. Its worker's position is where it was."
        )
    if result.unreadable:
        output.result(f"[yellow]{output.count(result.unreadable)} records cannot be read and say nothing[/] (`tidemark quarantine list`)")
    if result.is_stopped:
        output.result("Stopped before the end of the range. The same command goes on.")
