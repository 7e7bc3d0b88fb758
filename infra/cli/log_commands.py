"""Commands about the log and the stores made from it: verify, rebuild."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import PROOF, command
from infra.cli.context import Context
from infra.cli.progress import Track
from infra.cli.stack_commands import Json

if TYPE_CHECKING:
    from projections.verify import Proof

STORES = ("log", "archive", "curated", "warehouse", "graph")
SERVER = {"log": "kafka", "archive": "s3", "curated": "s3", "warehouse": "postgres", "graph": "neo4j"}


@command("verify", panel=PROOF, examples=["tidemark verify", "tidemark verify warehouse graph", "tidemark verify --json"])
def verify(
    stores: Annotated[
        list[str] | None, typer.Argument(help="log, archive, curated, warehouse, graph; by default all, curated once it was started.")
    ] = None,
    json: Json = False,
) -> int:
    """Read each store back, read the log, and prove them equal: exit status 3 when they are not."""
    names = stores or list(STORES)
    unknown = [name for name in names if name not in STORES]
    if unknown:
        raise typer.BadParameter(f"expected {', '.join(STORES)}, found {', '.join(unknown)}", param_hint="STORES")
    context = Context()
    composition = context.need("kafka", "registry", *(SERVER[name] for name in names))
    if "curated" in names:
        context.need("postgres")  # its catalog; its files are in S3
        if not stores and not composition.has_curated():
            names.remove("curated")
    verifier = composition.verifier()
    proofs: list[Proof] = []
    for name in names:
        if name == "log":
            found = verifier.log()
        elif name == "archive":
            found = verifier.archive(composition.archive())
        else:
            found = verifier.projection(getattr(composition, name)())
        proofs.append(found)
        if not json:
            show_proof(found)
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
    aside = f", {output.count(proof.quarantined)} in quarantine" if proof.quarantined else ""
    output.result(f"{mark}  [bold]{output.safe(proof.store)}[/]  {output.count(proof.records)} records{aside}")
    if rows:
        output.result(f"       [dim]rows: {rows}[/]")
    if proof.excluded:
        reasons = ", ".join(f"{output.safe(reason)} {output.count(n)}" for reason, n in proof.excluded.items())
        output.result(f"       [dim]without a row of their own: {reasons}[/]")
    for problem in proof.problems[:10]:
        output.result(f"       [red]{output.safe(problem)}[/]")


class Rebuildable(StrEnum):
    """Read models that have generations."""

    archive = "archive"
    curated = "curated"
    warehouse = "warehouse"
    graph = "graph"


@command(
    "rebuild",
    panel=PROOF,
    examples=["tidemark rebuild warehouse", "tidemark rebuild graph", "tidemark rebuild archive --json"],
)
def rebuild(name: Annotated[Rebuildable, typer.Argument(help="Read model to build anew.")], json: Json = False) -> int:
    """Build the next generation from the earliest event, prove it equal to the log, then swap it in. Run it again to go on."""
    from infra.cli.case_commands import user
    from infra.rebuild import rebuild as build

    context = Context()
    composition = context.need("kafka", "registry", SERVER[name.value])
    stages = {
        "build": "read the log from its earliest event",
        "verify": "prove it equal to the log",
        "swap": "swap it in",
    }
    told: set[str] = set()
    with Track(f"rebuild {name.value}") as track:

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in told:
                told.add(stage)
                output.say(f"{name.value}: {stages[stage]}")
            if stage == "build":
                track.update(done, total, what=stages[stage], lag=total - done)
            else:
                track.say(stages[stage])

        result = build(composition, context.stack, name.value, actor=user(), progress=progress)
    if json:
        output.print_json(result.as_json())
        return exits.OK
    if result.was_resumed:
        output.result("An interrupted rebuild was gone on with.")
    if result.proof is not None:
        show_proof(result.proof)
    output.result(
        f"[green]Generation {result.generation} of {name.value} is live[/] after {output.duration(result.seconds)},"
        f" {output.count(result.records)} records read."
    )
    if result.released:
        output.result(f"{output.count(result.released)} quarantined records were taken this time.")
    if result.quarantined:
        output.result(f"[yellow]{output.count(result.quarantined)} records are in quarantine[/] (`tidemark quarantine list`)")
    output.result(f"Generation {result.replaced} is kept: {output.safe(result.old)}")
    return exits.OK
