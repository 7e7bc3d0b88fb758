"""Commands about the log and the stores made from it: verify, rebuild, repair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import PROOF, command
from infra.cli.context import Context
from infra.cli.offsets import offsets_of
from infra.cli.progress import Track
from infra.cli.stack_commands import Json
from infra.cli.times import FORMATS, milliseconds, time_of

if TYPE_CHECKING:
    from infra.read_models import ReadModel
    from infra.rebuild_estimate import Estimate
    from projections.coverage import Covered
    from projections.verify import Proof

_UNTIL = "expected a time like 2026-11-02T12:00 or a .json file"


PATIENCE_S = 8.0  # of a store that is behind: the laziest worker, the curated table's, flushes every five seconds


@command(
    "verify",
    panel=PROOF,
    examples=["tidemark verify", "tidemark verify warehouse graph", "tidemark verify archive --partitions", "tidemark verify --json"],
)
def verify(
    stores: Annotated[
        list[str] | None,
        typer.Argument(help="log, archive, curated, warehouse, graph, or an installed projection; by default all that were started."),
    ] = None,
    partitions: Annotated[
        bool, typer.Option("--partitions", help="Show the range of offsets of each partition: records, and holes by name.")
    ] = False,
    json: Json = False,
) -> int:
    """Read each store back, read the log, and prove them equal: exit status 3 when they are not.

    Each store is compared at its own position, while traffic flows; one that stands still behind the log is not equal.
    """
    from infra.read_models import names as all_names
    from infra.read_models import read_model

    known = ("log", *all_names())
    names = stores or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(f"expected {', '.join(known)}, found {', '.join(unknown)}", param_hint="STORES")
    context = Context()
    composition = context.need("kafka", "registry")
    if not stores and not context.stack.is_up():
        # Nothing is local: a store whose server has no address is none of this installation's.
        away = set(context.stack.local_parts())
        names = [name for name in names if name == "log" or not away & set(read_model(name).needs)]
    context.need(*(server for name in names if name != "log" for server in read_model(name).needs))
    if not stores:
        names = [name for name in names if name == "log" or composition.was_started(name)]
    verifier = composition.verifier(PATIENCE_S)
    proofs: list[Proof] = []
    for name in names:
        if name == "log":
            found = verifier.log()
        elif name == "archive":
            found = verifier.archive(composition.archive())
        else:
            found = verifier.projection(composition.store(name))
        proofs.append(found)
        if not json:
            show_proof(found)
            if partitions:
                show_ranges(found)
    is_ok = all(proof.is_ok for proof in proofs)
    if json:
        output.print_json({"ok": is_ok, "stores": [proof.as_json() for proof in proofs]})
    elif is_ok:
        output.result("[green]Every store equals the log.[/]" if len(names) > 1 else "[green]It equals the log.[/]")
    return exits.OK if is_ok else exits.RED


def show_proof(proof: Proof) -> None:
    """A proof: what was compared, and the first differences."""
    mark = "[green]equal[/]" if proof.is_ok else "[red]differs[/]"
    rows = ", ".join(f"{output.safe(name)} {output.count(n)}" for name, n in proof.rows.items())
    applied = f": {output.count(proof.applied)} applied" if proof.applied is not None else ""
    aside = f", {output.count(proof.quarantined)} in quarantine" if proof.quarantined else ""
    output.result(f"{mark}  [bold]{output.safe(proof.store)}[/]  {output.count(proof.records)} records{applied}{aside}")
    if rows:
        output.result(f"       [dim]rows: {rows}[/]")
    if proof.excluded:
        reasons = ", ".join(f"{output.safe(reason)} {output.count(n)}" for reason, n in proof.excluded.items())
        output.result(f"       [dim]without a row of their own: {reasons}[/]")
    if proof.offsets:
        output.result(f"       [dim]{_offsets_in_words(proof.offsets)}[/]")
    for problem in proof.problems[:10]:
        output.result(f"       [red]{output.safe(problem)}[/]")


def _offsets_in_words(found: list[Covered]) -> str:
    total = sum(one.until - one.first for one in found)
    parts = {
        "records": sum(one.records for one in found),
        "transaction markers": sum(one.markers for one in found),
        "records of aborted transactions": sum(one.aborted for one in found),
        "holes that Kafka has forgotten": sum(one.holes for one in found),
    }
    named = " + ".join(f"{output.count(n)} {name}" for name, n in parts.items() if n) or "nothing"
    at_head = sum(one.until >= one.head for one in found)
    return f"offsets: {output.count(total)} = {named}; {at_head} of {len(found)} partitions up to the last stable offset"


def show_ranges(proof: Proof) -> None:
    """The offsets that a proof covers, partition by partition."""
    output.print_table(
        "", ("topic", "partition", "from", "until", "head", "records", "markers", "aborted", "forgotten"),
        [(*asdict(one).values(),) for one in proof.offsets],
        right=("partition", "from", "until", "head", "records", "markers", "aborted", "forgotten"),
    )  # fmt: skip


class Filler(StrEnum):
    """What a new generation is filled by."""

    engine = "engine"
    spark = "spark"


STAGES = {
    "spark": "decode the archive in Spark",
    "read": "read the log, archive first",
    "sheets": "lay out nodes and relationships",
    "import": "import them into a store that no server has opened",
    "build": "catch up by the log",
    "verify": "prove it equal to the log",
    "swap": "swap it in",
}
COUNTED = {"read": "records", "build": "records", "sheets": "rows"}


@command(
    "rebuild",
    panel=PROOF,
    examples=[
        "tidemark rebuild warehouse",
        "tidemark rebuild graph --dry-run",
        "tidemark rebuild warehouse --no-swap",
        "tidemark rebuild warehouse --swap",
        "tidemark rebuild warehouse --rollback",
        "tidemark rebuild archive --json",
        "tidemark rebuild scores",
        "tidemark rebuild alerts --dry-run",
        "tidemark rebuild curated --with spark",
    ],
)
def rebuild(
    name: Annotated[
        str,
        typer.Argument(
            help="Read model to build anew: archive, curated, warehouse, graph, an installed one; or of the warehouse: scores, alerts."
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would read, write and take; change nothing.")] = False,
    no_swap: Annotated[bool, typer.Option("--no-swap", help="Stop when the next generation is proven.")] = False,
    swap: Annotated[bool, typer.Option("--swap", help="Make the generation live that is proven already.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Return to the generation before, caught up first.")] = False,
    with_: Annotated[
        Filler, typer.Option("--with", help="What fills the new generation: the engine, or for the curated table a Spark job.")
    ] = Filler.engine,
    json: Json = False,
) -> int:
    """Build the next generation from the first event beside the live one, prove it equal to the log, then swap it in.

    The live one goes on meanwhile. Run it again to go on after an interruption. Scores and alerts are parts of the warehouse: these
    are replayed in place.
    """
    from infra import rebuild as work
    from infra.cli.case_commands import user
    from infra.cli.part_command import rebuild_in_place
    from infra.rebuild_part import PARTS, plan_part
    from infra.resend import REACTORS

    if dry_run + no_swap + swap + rollback > 1:
        raise typer.BadParameter("expected one of --dry-run, --no-swap, --swap and --rollback", param_hint="OPTIONS")
    if with_ is Filler.spark and name != "curated":
        raise typer.BadParameter("Spark fills the curated table alone", param_hint="--with")
    if name in PARTS and (no_swap or swap or rollback):
        raise typer.BadParameter(f"{name} are replayed in place: there is no generation to swap", param_hint="OPTIONS")
    if name in REACTORS:
        raise typer.BadParameter(
            f"{name} sends messages and keeps none: there is nothing to build; `tidemark resend {name}` sends them again", param_hint="NAME"
        )
    needs = model_of("warehouse" if name in PARTS else name).needs
    context = Context()
    composition = context.need("kafka", "registry", *needs)
    if dry_run:
        show_estimate((plan_part if name in PARTS else work.plan_of)(composition, context.stack, name), json)
        return exits.OK
    if name in PARTS:
        return rebuild_in_place(composition, context.stack, name, is_json=json)
    if not (swap or rollback or json):
        show_estimate(work.plan_of(composition, context.stack, name), json, output.say)
    told: set[str] = set()
    with Track(f"rebuild {name}") as track:

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in told:
                told.add(stage)
                output.say(f"{name}: {STAGES[stage]}")
            if stage in COUNTED:
                track.update(done, total, what=STAGES[stage], lag=total - done)
            else:
                track.say(STAGES[stage])

        if swap:
            result = work.swap(composition, context.stack, name, actor=user(), progress=progress)
        elif rollback:
            result = work.rollback(composition, context.stack, name, actor=user(), progress=progress)
        else:
            result = work.rebuild(
                composition, context.stack, name, actor=user(), progress=progress, swaps=not no_swap,
                by_spark=output.say if with_ is Filler.spark else None,
            )  # fmt: skip
    if json:
        output.print_json(result.as_json())
        return exits.OK
    if result.was_resumed and not swap:
        output.result("An interrupted run was gone on with.")
    if result.proof is not None:
        show_proof(result.proof)
    if result.compared:
        output.result(f"[dim]Generation {result.generation}: {output.safe(result.compared)}.[/]")
    for difference in result.differences:
        output.result(f"       [yellow]{output.safe(difference)}[/]")
    if not result.is_live:
        output.result(
            f"[green]Generation {result.generation} of {name} stands proven beside the live one[/] after"
            f" {output.duration(result.seconds)}, {output.count(result.records)} records read: `tidemark rebuild {name} --swap`"
        )
        return exits.OK
    caught_up = f", caught up in {result.caught_up_s:.1f} s" if rollback else ""
    output.result(
        f"[green]Generation {result.generation} of {name} is live[/] after {output.duration(result.seconds)},"
        f" {output.count(result.records)} records read{caught_up}."
    )
    output.result(f"Readers waited {result.readers_paused_s:.2f} s at most; the worker stood still for {result.worker_paused_s:.1f} s.")
    if result.released:
        output.result(f"{output.count(result.released)} quarantined records were taken this time.")
    if result.quarantined:
        output.result(f"[yellow]{output.count(result.quarantined)} records are in quarantine[/] (`tidemark quarantine list`)")
    output.result(f"Generation {result.replaced} is kept: {output.safe(result.old)}")
    return exits.OK


def show_estimate(found: Estimate, json: bool, say: Callable[[str], None] = output.result) -> None:
    """What a rebuild would read, write and take."""
    if json:
        output.print_json(found.as_json())
        return
    place = f"generation {found.generation}" + (f" beside {found.replaces}" if found.replaces != found.generation else "")
    say(
        f"{found.name}: {place}; reads {output.count(found.records)} records:"
        f" {output.count(found.archive_records)} from the archive ({output.count(found.archive_objects)} objects,"
        f" {output.size(found.archive_bytes)}), {output.count(found.kafka_records)} from Kafka (about {output.size(found.kafka_bytes)})"
    )
    if found.how:
        say(f"       [dim]{output.safe(found.how)}[/]")
    rows = ", ".join(f"{output.safe(name)} {output.count(n)}" for name, n in found.rows.items())
    say(f"       [dim]writes about: {rows or 'nothing is known of the live one'}[/]")
    origin = "the rate of the last rebuild here" if found.is_measured else "the rate of a bench on two cores"
    say(f"       [dim]takes about {output.duration(found.seconds)} to build ({output.count(found.records_per_s)}/s, {origin})[/]")


def model_of(name: str) -> ReadModel:
    """The read model that a person named.

    Raises:
        typer.BadParameter: there is none.
    """
    from domain.errors import InvalidValue
    from infra.read_models import read_model

    try:
        return read_model(name)
    except InvalidValue as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None


class Repairable(StrEnum):
    """Read models that can be repaired in part."""

    warehouse = "warehouse"


@command(
    "repair",
    panel=PROOF,
    examples=[
        "tidemark repair warehouse --from-time 2026-11-01 --until 2026-11-02T12:00",
        "tidemark repair warehouse --from-offsets positions.json",
        "tidemark repair warehouse --wallet ethereum:0x1",
    ],
)
def repair(
    name: Annotated[Repairable, typer.Argument(help="Read model to repair in place.")],
    from_time: Annotated[
        datetime | None, typer.Option(formats=FORMATS, help="From records appended at this time (UTC) on; by default from the first.")
    ] = None,
    from_offsets: Annotated[
        Path | None, typer.Option(help='From these offsets on: JSON, {"transaction-events/0": 1200, …}; others are not touched.')
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Up to this time (UTC), or the offsets in this JSON file; by default up to the checkpoint.")
    ] = None,
    wallet: Annotated[str | None, typer.Option(help="Only what names this wallet.")] = None,
    json: Json = False,
) -> int:
    """Delete rows and apply them again from the log, slice by slice, while the worker goes on. The checkpoint stays."""
    from infra.repair import position_at
    from infra.repair import repair as mend
    from projections.warehouse import WarehouseProjection

    if from_time is not None and from_offsets is not None:
        raise typer.BadParameter("expected --from-time or --from-offsets, found both", param_hint="OPTIONS")
    if from_time is None and from_offsets is None and wallet is None:
        raise typer.BadParameter("expected --from-time, --from-offsets or --wallet; all of it is a rebuild", param_hint="OPTIONS")
    given = offsets_of(from_offsets) if from_offsets is not None else None
    end_given = offsets_of(Path(until)) if until is not None and until.endswith(".json") else None
    end_time = time_of(until, _UNTIL, "--until") if until is not None and end_given is None else None
    composition = Context().need("kafka", "registry", "postgres")
    topics = WarehouseProjection.topics
    start = position_at(composition, topics, milliseconds(from_time)) if from_time is not None else given or {}
    end = position_at(composition, topics, milliseconds(end_time)) if end_time is not None else end_given
    if given is not None:
        ends = end if end is not None else composition.log.ends(topics)
        end = {tp: ends[tp] for tp in given if tp in ends}
    with Track(f"repair {name.value}", "offsets") as track:
        result = mend(composition, name.value, start=start, end=end, wallet=wallet, progress=track.update)
    if json:
        output.print_json(result.as_json())
        return exits.OK
    output.result(
        f"[green]{name.value}, generation {result.generation}[/]: {output.count(result.records)} records applied again in"
        f" {output.count(result.slices)} slices; {output.count(result.deleted)} rows deleted, {output.count(result.written)} written."
        f" `tidemark verify {name.value}` proves it."
    )
    return exits.OK
