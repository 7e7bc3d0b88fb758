"""Commands for alerts, their cases, and wallets: what an analyst decides goes to the command topic like any other command."""

from __future__ import annotations

import os
import pwd
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli import exits, output
from infra.cli.app import CASES, command, group
from infra.cli.context import Context
from infra.cli.stack_commands import Json

if TYPE_CHECKING:
    from domain.commands import Command

alerts = group("alerts", "List alerts and work on their cases.", CASES)

Case = Annotated[
    str,
    typer.Argument(help="Case of an alert, as `tidemark alerts list` shows it; its beginning is enough where only one begins so."),
]
Wallet = Annotated[str, typer.Argument(help="Wallet, <network>:<address>.")]
Actor = Annotated[str | None, typer.Option(help="Who decides; by default the user of this machine.")]
Reason = Annotated[str, typer.Option(help="Why, in a few words; it is kept for ever.")]


class Status(StrEnum):
    """Where a case stands: nobody has looked, someone works on it, a verdict stands, work has ended."""

    alerted = "alerted"
    open = "open"
    decided = "decided"
    closed = "closed"


class Verdict(StrEnum):
    """What a case ends with."""

    fraud = "fraud"
    not_fraud = "not_fraud"
    inconclusive = "inconclusive"


@command("list", of=alerts, examples=["tidemark alerts list", "tidemark alerts list --status alerted --json"])
def list_alerts(
    status: Annotated[Status | None, typer.Option(help="Only cases that stand there.")] = None,
    wallet: Annotated[str | None, typer.Option(help="Only of this wallet.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The strongest so many.")] = 50,
    json: Json = False,
) -> int:
    """List alerts, the strongest first."""
    composition = Context().need("kafka", "registry")
    found = [case for case in composition.log.cases() if status in (None, case["status"]) and wallet in (None, case["wallet_id"])]
    found.sort(key=lambda case: (-case["score"], case["case_id"]))
    if json:
        output.print_json(found[:limit])
        return exits.OK
    if not found:
        output.result(
            "No alert."
            if composition.log.deployed() is not None
            else "No alert: no model is deployed yet (`tidemark train`, `tidemark deploy`)."
        )
        return exits.OK
    rows = [
        (
            c["case_id"],
            f"{c['score']:.4f}",
            c["status"],
            c["verdict"] or "",
            len(c["transactions"]),
            c["reason"],
            c["wallet_id"],
        )
        for c in found[:limit]
    ]
    output.print_table("", ("case", "score", "status", "verdict", "tx", "reason", "wallet"), rows, right=("score", "tx"))
    if len(found) > limit:
        output.say(f"[dim]{len(found) - limit} more: --limit {len(found)}[/]")
    return exits.OK


@command("show", of=alerts, examples=["tidemark alerts show 4f6c", "tidemark alerts show 4f6c --json"])
def show_alert(case: Case, json: Json = False) -> int:
    """Show one alert: why, which transactions, where its case stands, and the link to look at it."""
    context = Context()
    found = case_of(context.need("kafka", "registry").log.cases(), case)
    link = _link(context, found["case_id"])
    if json:
        output.print_json({**found, "link": link})
        return exits.OK
    output.print_fields({name: value for name, value in found.items() if name != "transactions" and value is not None})
    output.print_table("\nTransactions", ("transaction",), [(tx_id,) for tx_id in found["transactions"]])
    if link is not None:
        output.result(
            f"\nIn Neo4j Browser: {output.safe(link)}\nConnect (`tidemark investigate --login`), then run what stands in the editor."
        )
    return exits.OK


@command("open", of=alerts, examples=["tidemark alerts open 4f6c"])
def open_case(case: Case, actor: Actor = None, json: Json = False) -> int:
    """Open an alert's case: someone works on it."""
    from domain.commands import OpenCase

    return _decide(case, json, lambda case_id: OpenCase(case_id, actor or user(), datetime.now(UTC)))


@command("assign", of=alerts, examples=["tidemark alerts assign 4f6c maria"])
def assign(
    case: Case,
    assignee: Annotated[str, typer.Argument(help="Who works on it.")],
    actor: Actor = None,
    json: Json = False,
) -> int:
    """Assign a case to someone."""
    from domain.commands import AssignCase

    return _decide(case, json, lambda case_id: AssignCase(case_id, assignee, actor or user(), datetime.now(UTC)))


@command("verdict", of=alerts, examples=['tidemark alerts verdict 4f6c fraud --reason "paid out to a mixer"'])
def verdict(
    case: Case,
    verdict: Annotated[Verdict, typer.Argument(help="What it was.")],
    reason: Reason,
    actor: Actor = None,
    json: Json = False,
) -> int:
    """Reach a verdict."""
    from domain.commands import ReachVerdict

    return _decide(case, json, lambda case_id: ReachVerdict(case_id, verdict.value, reason, actor or user(), datetime.now(UTC)))


@command("close", of=alerts, examples=['tidemark alerts close 4f6c --reason "reported"'])
def close(case: Case, reason: Reason, actor: Actor = None, json: Json = False) -> int:
    """Close a case that has a verdict."""
    from domain.commands import CloseCase

    return _decide(case, json, lambda case_id: CloseCase(case_id, reason, actor or user(), datetime.now(UTC)))


@command("freeze", panel=CASES, examples=['tidemark freeze customer:7f3a --reason "account taken over"'])
def freeze(wallet: Wallet, reason: Reason, actor: Actor = None, json: Json = False) -> int:
    """Freeze a wallet: on networks that ask first, what it sends is held from now on."""
    from domain.commands import FreezeWallet

    return _send(wallet, FreezeWallet(wallet, reason, actor or user(), datetime.now(UTC)), json)


@command("release", panel=CASES, examples=['tidemark release customer:7f3a --reason "owner confirmed"'])
def release(wallet: Wallet, reason: Reason, actor: Actor = None, json: Json = False) -> int:
    """Release a frozen wallet: what was held is recorded now, in its order of arrival."""
    from domain.commands import ReleaseWallet

    return _send(wallet, ReleaseWallet(wallet, reason, actor or user(), datetime.now(UTC)), json)


def user() -> str:
    """The user of this machine, for the log's record of who decided."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def case_of(cases: list[dict[str, Any]], given: str) -> dict[str, Any]:
    """The one case whose id is or begins with what was given.

    Raises:
        CommandRefused: none, or more than one.
    """
    from domain.errors import CommandRefused

    found = [case for case in cases if case["case_id"] == given] or [case for case in cases if case["case_id"].startswith(given)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandRefused("ambiguous_case", f"{len(found)} cases begin with {given[:40]!r}: give more of it")
    raise CommandRefused("unknown_case", f"no case {given[:40]!r}: `tidemark alerts list` shows them")


def _decide(case: str, is_json: bool, make: Any) -> int:
    from infra.command_sender import send

    composition = Context().need("kafka", "registry")
    case_id = case_of(composition.log.cases(), case)["case_id"]
    accepted = send(composition, case_id, make(case_id))
    return _told(accepted.as_json(), f"case {case_id}", is_json)


def _send(key: str, what: Command, is_json: bool) -> int:
    from domain.values import wallet_id
    from infra.command_sender import send

    wallet_id(key)
    accepted = send(Context().need("kafka", "registry"), key, what)
    return _told(accepted.as_json(), key, is_json)


def _told(answer: dict[str, Any], subject: str, is_json: bool) -> int:
    if is_json:
        output.print_json(answer)
    else:
        output.result(f"[green]Done[/]: {output.safe(subject)}")
    return exits.OK


def _link(context: Context, case_id: str) -> str | None:
    from graph.browser.links import browser_link

    url = context.settings.neo4j.browser_url
    return browser_link(url, "alert", {"case_id": case_id}) if url else None
