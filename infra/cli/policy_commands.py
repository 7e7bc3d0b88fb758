"""Commands for the policy: show, test, set."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import CASES, command, group
from infra.cli.context import Context
from infra.cli.progress import Track
from infra.cli.stack_commands import Json

policy = group("policy", "What becomes an alert: try a policy's rules, and change the one that holds.", CASES)
PolicyFile = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped policy (standard).")]


@command("show", of=policy, examples=["tidemark policy show", "tidemark policy show standard", "tidemark policy show --json"])
def show_policy(
    name: Annotated[str | None, typer.Argument(help="A YAML file or a shipped policy; by default the one that holds.")] = None,
    json: Json = False,
) -> int:
    """Show a policy: what the alerts' budget is, and its rules."""
    import json as json_

    from infra.policy_files import current, read_policy

    found = read_policy(name) if name is not None else current(Context().need("kafka", "registry"))
    if json:
        output.print_json(json_.loads(found.to_json()))
        return exits.OK
    output.result(f"[bold]{output.safe(found.title)}[/]")
    alerts = found.alerts
    output.print_fields({"budget": alerts.budget, "floor": alerts.floor, "window": alerts.window, "warm_up": alerts.warm_up})
    output.print_table("\nRules", ("rule", "says"), [(rule.name, rule.says) for rule in found.rules])
    return exits.OK


@command(
    "test",
    of=policy,
    examples=[
        "tidemark policy test standard",
        "tidemark policy test mine.yaml --data payments.jsonl --mapping payment_json",
        "tidemark policy test mine.yaml --json",
    ],
)
def test_policy(
    name: PolicyFile,
    data: Annotated[str | None, typer.Option(help="A file of transactions, in order of time; by default the log's.")] = None,
    mapping: Annotated[str | None, typer.Option(help="The file's mapping; by default the shipped one that fits.")] = None,
    json: Json = False,
) -> int:
    """Let a policy's rules judge transactions that are there already: how often each would have spoken, and of how many wallets. Nothing is
    written."""
    from infra.ingest import mapping_for
    from infra.policy_files import read_policy
    from infra.policy_trial import of_file, of_log, try_policy
    from infra.pseudonym_key import pseudonym_key
    from infra.sources.mapping import TransactionMapping

    wanted = read_policy(name)
    context = Context()
    if data is not None:
        chosen = mapping_for(data, mapping)
        if not isinstance(chosen, TransactionMapping):
            raise typer.BadParameter(f"{chosen.title} describes {chosen.describes}, not transactions", param_hint="--mapping")
        tables = of_file(data, chosen, pseudonym_key(context.given.stack_dir) if chosen.needs_key else None)
    else:
        tables = of_log(context.need("kafka", "registry"))
    with Track("judging", "transactions") as track:
        trial = try_policy(wanted, tables, track.update)
    if json:
        output.print_json({"policy": wanted.title, **trial.as_json()})
        return exits.OK
    output.result(
        f"[bold]{output.safe(wanted.title)}[/]: {output.count(trial.transactions)} transactions,"
        f" {output.count(len(trial.alerted))} wallets that a rule spoke of. Nothing was written."
    )
    rows = [(rule, output.count(found.hits), output.count(len(found.wallets))) for rule, found in trial.rules.items()]
    output.print_table("", ("rule", "times", "wallets"), rows, right=("times", "wallets"))
    shown = [(rule, *example) for rule, found in trial.rules.items() for example in found.examples]
    if shown:
        output.print_table("\nThe first of each", ("rule", "transaction", "wallet", "says"), shown)
    return exits.OK


@command("set", of=policy, examples=["tidemark policy set mine.yaml", "tidemark policy set standard --actor maria"])
def set_policy(
    name: PolicyFile,
    actor: Annotated[str | None, typer.Option(help="Who decides it; by default the account that runs this.")] = None,
    json: Json = False,
) -> int:
    """Make a policy hold: an event in the log. The workers alerts and rules go by it within seconds, for what comes from then on."""
    from infra.cli.case_commands import user
    from infra.policy_files import change, read_policy

    wanted = read_policy(name)
    is_changed = change(Context().need("kafka", "registry"), wanted, actor or user())
    if json:
        output.print_json({"policy": wanted.title, "changed": is_changed})
    elif is_changed:
        output.result(f"[green]{output.safe(wanted.title)}[/] holds. The workers alerts and rules start again with it by themselves.")
    else:
        output.result(f"{output.safe(wanted.title)} holds already.")
    return exits.OK
