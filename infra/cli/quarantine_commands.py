"""Commands for the quarantine: list, show, replay, drop."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import PROOF, command, group
from infra.cli.case_commands import user
from infra.cli.context import Context
from infra.cli.stack_commands import Json

if TYPE_CHECKING:
    from infra.quarantine_replay import Replayed
    from projections.quarantine import QuarantineEntry

quarantine = group("quarantine", "Look at records that could not be applied, give them back or give them up.", PROOF)

Place = Annotated[str, typer.Argument(help="Where the record stands, as the list shows it: <topic>/<partition>/<offset>.")]
Projection = Annotated[str | None, typer.Option(help="Only what this reader set aside.")]
Reason = Annotated[str | None, typer.Option(help="Only what was set aside for this reason.")]
Since = Annotated[str | None, typer.Option(help="Only what was set aside from then on: 2026-11-27T10:00 (UTC), or 2h, 7d ago.")]
Until = Annotated[str | None, typer.Option(help="Only what was set aside before then.")]


@command(
    "list",
    of=quarantine,
    examples=[
        "tidemark quarantine list",
        "tidemark quarantine list --projection warehouse --reason refused_by_store --json",
        "tidemark quarantine list --since 2h",
    ],
)
def list_entries(
    projection: Projection = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="Entries at most.")] = 50,
    json: Json = False,
) -> int:
    """List the open entries: who set the record aside, where it stands, and why."""
    from infra.quarantine_replay import masked, place_of

    found = _entries(Context(), projection, reason, since, until)
    if json:
        output.print_json([masked(entry) for entry in found[:limit]])
        return exits.OK
    if not found:
        output.result("Nothing in quarantine matches." if any((projection, reason, since, until)) else "Quarantine is empty.")
        return exits.OK
    rows = [(e.projection, place_of(e), e.reason, masked(e)["payload_bytes"], e.message[:100]) for e in found[:limit]]
    output.print_table("", ("set aside by", "place", "reason", "bytes", "message"), rows, right=("bytes",))
    if len(found) > limit:
        output.say(f"[dim]{len(found) - limit} more: --limit {len(found)}[/]")
    return exits.OK


@command(
    "show",
    of=quarantine,
    examples=["tidemark quarantine show transaction-events/3/4711", "tidemark quarantine show commands/0/12 --full"],
)
def show_entry(
    place: Place,
    projection: Projection = None,
    full: Annotated[bool, typer.Option("--full", help="The payload too, in hexadecimal and text; it may hold personal data.")] = False,
    json: Json = False,
) -> int:
    """Show one record: where it stands, why, its size and hash; the payload only with --full, control characters escaped."""
    from domain.errors import CommandRefused
    from infra.quarantine_replay import masked, place_of, preview, with_payload

    context = Context()
    found = [entry for entry in _entries(context, projection) if place_of(entry) == place]
    if not found:
        raise CommandRefused("unknown_entry", f"nothing open in quarantine at {place[:80]!r}: `tidemark quarantine list` shows what is")
    if full:
        if any(entry.stored is not None for entry in found):
            context.need("s3")
        found = [with_payload(context.composition, entry) for entry in found]
        output.say("[yellow]What follows may hold personal data.[/]")
    if json:
        output.print_json([masked(entry, full) for entry in found])
        return exits.OK
    for entry in found:
        facts = masked(entry, full)
        output.print_fields({name: value for name, value in facts.items() if name not in ("payload_hex", "is_whole") and value is not None})
        for name, value in entry.record.headers:
            output.print_fields({f"header {name}": (value or b"").hex()})
        if full:
            output.console.print(output.plain_lines(preview(entry.record.value, None)), markup=False)
    if not full:
        output.say("[dim]--full shows the payload; it may hold personal data.[/]")
    return exits.OK


@command(
    "replay",
    of=quarantine,
    examples=[
        "tidemark quarantine replay",
        "tidemark quarantine replay commands/0/12",
        "tidemark quarantine replay --projection warehouse --reason refused_by_store",
    ],
)
def replay_entries(
    place: Annotated[str | None, typer.Argument(help="One record, <topic>/<partition>/<offset>; by default every open one.")] = None,
    projection: Projection = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    json: Json = False,
) -> int:
    """Give records back to who could not take them: each is applied once, or stays with the reason why not; a key's in their order."""
    from domain.errors import CommandRefused
    from infra.quarantine_replay import COMMAND_HANDLER, place_of, replay
    from infra.read_models import set_aside_by

    context = Context()
    entries = [entry for entry in _entries(context, projection, reason, since, until) if place in (None, place_of(entry))]
    if not entries and place is not None:
        raise CommandRefused("unknown_entry", f"nothing open in quarantine at {place[:80]!r}")
    models = (set_aside_by(entry.projection) for entry in entries)
    needed = {server for model in models if model is not None for server in model.needs}
    composition = context.need(*needed, *({"s3"} if any(entry.stored is not None for entry in entries) else ()))

    def tell(replayed: Replayed) -> None:
        if not json:
            mark = "[green]applied[/]" if replayed.is_applied else "[yellow]stays  [/]"
            why = "" if replayed.is_applied else f": {output.safe(replayed.outcome)}"
            output.result(f"{mark}  {output.safe(replayed.entry.projection)}  {output.safe(place_of(replayed.entry))}{why}")

    found = replay(composition, entries, user(), tell)
    applied = sum(replayed.is_applied for replayed in found)
    if json:
        output.print_json({"applied": applied, "stay": len(found) - applied, "entries": [replayed.as_json() for replayed in found]})
    elif not found:
        output.result("Quarantine is empty.")
    elif any(replayed.is_applied and replayed.entry.projection == COMMAND_HANDLER for replayed in found):
        output.say("[dim]Commands were sent again; `tidemark status` shows whether the handler has taken them.[/]")
    return exits.OK if applied == len(found) else exits.FAILED


@command(
    "drop",
    of=quarantine,
    examples=[
        'tidemark quarantine drop transaction-events/3/4711 --because "a load test wrote it"',
        'tidemark quarantine drop --projection scorer --reason out_of_order --until 2026-11-27 --because "ticket 812" --yes',
    ],
)
def drop_entries(
    because: Annotated[str, typer.Option(help="Why, in a few words; it is kept for ever, with your name.")],
    place: Annotated[str | None, typer.Argument(help="One record, <topic>/<partition>/<offset>; else name a filter.")] = None,
    projection: Projection = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    actor: Annotated[str | None, typer.Option(help="Who decides; by default the user of this machine.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before several entries are dropped.")] = False,
    json: Json = False,
) -> int:
    """Give records up: their readers never take them. Nothing is deleted; `verify` counts them as dropped_from_quarantine."""
    from domain.errors import CommandRefused
    from infra.quarantine_replay import give_up, place_of, waiting_behind

    if not any((place, projection, reason, since, until)):
        raise typer.BadParameter("name a place or a filter", param_hint="PLACE")
    if not because.strip():
        raise typer.BadParameter("say why", param_hint="--because")
    context = Context()
    entries = [entry for entry in _entries(context, projection, reason, since, until) if place in (None, place_of(entry))]
    if not entries:
        raise CommandRefused("unknown_entry", "nothing open in quarantine matches: `tidemark quarantine list` shows what is")
    if len(entries) > 1 and not yes and not typer.confirm(f"Drop {len(entries)} entries?", err=True):
        return exits.FAILED
    dropped = give_up(context.composition, entries, because.strip(), actor or user())
    if json:
        places = [{"projection": entry.projection, "place": place_of(entry)} for entry in dropped]
        output.print_json({"dropped": len(dropped), "entries": places})
        return exits.OK
    for entry in dropped:
        output.result(f"[green]dropped[/]  {output.safe(entry.projection)}  {output.safe(place_of(entry))}")
    rest = context.composition.log.quarantine().values()
    if waiting := sum(len(waiting_behind(rest, entry)) for entry in dropped):
        output.say(f"[yellow]{waiting} records waited for the same key: `tidemark quarantine replay` gives them back.[/]")
    return exits.OK


def moment(text: str, now: datetime | None = None) -> datetime:
    """A point in time: ISO 8601 (UTC where it names no zone), or so long ago: 30m, 2h, 7d.

    Raises:
        typer.BadParameter: it is neither.
    """
    ago = re.fullmatch(r"(\d{1,6})([smhd])", text.strip(), re.ASCII)
    if ago is not None:
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[ago[2]]
        try:
            return (now or datetime.now(UTC)) - timedelta(**{unit: int(ago[1])})
        except OverflowError:
            raise typer.BadParameter(f"{text!r} is before the first year") from None
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(f"expected a time like 2026-11-27T10:00 or 2h, found {text[:40]!r}") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _entries(
    context: Context,
    projection: str | None,
    reason: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> list[QuarantineEntry]:
    start = moment(since).timestamp() * 1000 if since is not None else float("-inf")
    end = moment(until).timestamp() * 1000 if until is not None else float("inf")
    found = context.need("kafka", "registry").log.quarantine()
    return [
        entry
        for key, entry in sorted(found.items())
        if projection in (None, key[0]) and reason in (None, entry.reason) and start <= entry.set_aside_ms < end
    ]
