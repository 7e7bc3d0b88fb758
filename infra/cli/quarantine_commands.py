"""Commands for the quarantine: list, show, replay."""

from __future__ import annotations

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

quarantine = group("quarantine", "Look at records that could not be applied, and give them back.", PROOF)

Place = Annotated[str, typer.Argument(help="Where the record stands, as the list shows it: <topic>/<partition>/<offset>.")]
Projection = Annotated[str | None, typer.Option(help="Only what this reader set aside.")]
PREVIEW_BYTES = 64


@command(
    "list",
    of=quarantine,
    examples=["tidemark quarantine list", "tidemark quarantine list --projection warehouse --json"],
)
def list_entries(
    projection: Projection = None,
    limit: Annotated[int, typer.Option(min=1, help="Entries at most.")] = 50,
    json: Json = False,
) -> int:
    """List the open entries: who set the record aside, where it stands, and why."""
    from infra.quarantine_replay import masked

    found = _entries(Context(), projection)
    if json:
        output.print_json([masked(entry) for entry in found[:limit]])
        return exits.OK
    if not found:
        output.result("Quarantine is empty.")
        return exits.OK
    rows = [(e.projection, place_of(e), e.reason, len(e.record.value or b""), e.message[:100]) for e in found[:limit]]
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
    full: Annotated[bool, typer.Option("--full", help="The whole payload, not only its first bytes.")] = False,
    json: Json = False,
) -> int:
    """Show one record with its reason and payload, in hexadecimal and text, control characters escaped."""
    from domain.errors import CommandRefused
    from infra.quarantine_replay import masked, preview

    found = [entry for entry in _entries(Context(), projection) if place_of(entry) == place]
    if not found:
        raise CommandRefused("unknown_entry", f"nothing open in quarantine at {place[:80]!r}: `tidemark quarantine list` shows what is")
    if json:
        output.print_json([masked(entry, full) for entry in found])
        return exits.OK
    for entry in found:
        facts = masked(entry, full)
        output.print_fields({name: value for name, value in facts.items() if name not in ("payload_hex", "is_whole")})
        for name, value in entry.record.headers:
            output.print_fields({f"header {name}": (value or b"").hex()})
        output.console.print(output.plain_lines(preview(entry.record.value, None if full else PREVIEW_BYTES)), markup=False)
    if not full and any(len(entry.record.value or b"") > PREVIEW_BYTES for entry in found):
        output.say("[dim]--full shows the rest; it may hold personal data.[/]")
    return exits.OK


@command(
    "replay",
    of=quarantine,
    examples=[
        "tidemark quarantine replay",
        "tidemark quarantine replay commands/0/12",
        "tidemark quarantine replay --projection warehouse",
    ],
)
def replay_entries(
    place: Annotated[str | None, typer.Argument(help="One record, <topic>/<partition>/<offset>; by default every open one.")] = None,
    projection: Projection = None,
    json: Json = False,
) -> int:
    """Give records back to who could not take them: each is applied once, or stays with the reason why not."""
    from domain.errors import CommandRefused
    from infra.quarantine_replay import COMMAND_HANDLER, WAREHOUSE, replay
    from projections.wallet_graph import PROJECTION as GRAPH

    context = Context()
    entries = [entry for entry in _entries(context, projection) if place in (None, place_of(entry))]
    if not entries and place is not None:
        raise CommandRefused("unknown_entry", f"nothing open in quarantine at {place[:80]!r}")
    servers = {"curated": "s3", WAREHOUSE: "postgres", GRAPH: "neo4j"}
    composition = context.need(*{servers[entry.projection] for entry in entries if entry.projection in servers})

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


def place_of(entry: QuarantineEntry) -> str:
    """Where an entry's record stands, as text."""
    return f"{entry.record.topic}/{entry.record.partition}/{entry.record.offset}"


def _entries(context: Context, projection: str | None) -> list[QuarantineEntry]:
    found = context.need("kafka", "registry").log.quarantine()
    return [entry for key, entry in sorted(found.items()) if projection in (None, key[0])]
