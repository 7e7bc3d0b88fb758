"""investigate: ask the wallet graph about a wallet or a case, and open the same question in Neo4j Browser."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from infra.cli import exits, output
from infra.cli.app import CASES, command
from infra.cli.case_commands import case_of
from infra.cli.context import Context
from infra.cli.stack_commands import Json

FOR_WALLET, FOR_CASE = "counterparties", "transactions"
"""What is asked where no query is named."""


@command(
    "investigate",
    panel=CASES,
    examples=[
        "tidemark investigate ethereum:0x8f2c…",
        "tidemark investigate ethereum:0x8f2c… --query similar",
        "tidemark investigate ethereum:0x8f2c… --query follow-the-money --to ethereum:0x77aa…",
        "tidemark investigate 4f6c --query alert",
        "tidemark investigate --list",
        "tidemark investigate --login",
    ],
)
def investigate(
    subject: Annotated[str | None, typer.Argument(help="Wallet (<network>:<address>) or case.")] = None,
    query: Annotated[str | None, typer.Option(help="Question to ask; --list shows them.")] = None,
    to: Annotated[str | None, typer.Option(help="Wallet at the other end, for follow-the-money.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows at most.")] = None,
    hub_degree: Annotated[int | None, typer.Option(min=2, help="From this many transactions on a wallet is not walked through.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the questions.")] = False,
    login: Annotated[bool, typer.Option("--login", help="Show Neo4j's address and user, and where the password is.")] = False,
    show_password: Annotated[bool, typer.Option("--show-password", help="Show the password too.")] = False,
    json: Json = False,
) -> int:
    """Ask the wallet graph about a wallet or a case; the link opens the same question in Neo4j Browser."""
    context = Context()
    if list_:
        return _list(json)
    if login or show_password:
        return _login(context, show_password, json)
    if subject is None:
        raise typer.BadParameter("give a wallet or a case", param_hint="SUBJECT")
    return _ask(context, subject, query, {"target_wallet_id": to, "limit": limit, "hub_degree": hub_degree}, json)


def _ask(context: Context, subject: str, query: str | None, options: dict[str, Any], is_json: bool) -> int:
    from graph.browser.links import browser_link
    from graph.investigation import investigation, run_query

    is_wallet = ":" in subject
    name = query or (FOR_WALLET if is_wallet else FOR_CASE)
    asked = investigation(name)
    composition = context.need("neo4j", *(() if is_wallet else ("kafka", "registry")))
    given = {key: value for key, value in options.items() if value is not None}
    if "case_id" in asked.parameters:
        case = case_of(context.need("kafka", "registry").log.cases(), subject) if not is_wallet else {"case_id": subject}
        given["case_id"] = case["case_id"]
    elif asked.parameters.keys() & {"wallet_id", "source_wallet_id"}:
        wallet = subject if is_wallet else case_of(composition.log.cases(), subject)["wallet_id"]
        given["source_wallet_id" if "source_wallet_id" in asked.parameters else "wallet_id"] = wallet
    neo4j = context.settings.neo4j
    driver = composition.clients.neo4j
    try:
        rows = run_query(driver, neo4j.database, name, given)
    finally:
        driver.close()
    link = browser_link(neo4j.browser_url, name, given) if neo4j.browser_url else None
    if is_json:
        output.print_json({"query": name, "parameters": given, "rows": rows, "link": link})
        return exits.OK
    output.result(f"[bold]{output.safe(asked.doc)}[/]")
    if not rows:
        output.result("Nothing found.")
    elif asked.is_drawn:
        _drawn(rows)
    else:
        columns = list(rows[0])
        output.print_table("", columns, [[_short(row[column]) for column in columns] for row in rows])
    if link is not None:
        output.result(
            f"\nNeo4j Browser: {output.safe(link)}\nConnect (`tidemark investigate --login`), then run what stands in the editor."
        )
    return exits.OK


def _drawn(rows: list[dict[str, Any]]) -> None:
    """Paths as one line for each relationship, each once."""
    lines: dict[tuple[str, str, str, str], tuple[object, ...]] = {}
    for row in rows:
        for path in row.values():
            if not isinstance(path, dict) or "nodes" not in path:
                continue
            ends = [str(node.get("wallet_id") or node.get("case_id")) for node in path["nodes"]]
            for index, relation in enumerate(path["relationships"]):
                caption = str(relation.get("caption") or "")
                key = (ends[index], str(relation["type"]), ends[index + 1], caption)
                lines[key] = (ends[index], relation["type"], ends[index + 1], caption, relation.get("transactions", ""))
    output.print_table("", ("one end", "is", "other end", "amount", "transactions"), list(lines.values()), right=("transactions",))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "" if value is None else str(value)
    return text if len(text) <= 120 else text[:119] + "…"


def _list(is_json: bool) -> int:
    from graph.investigation import INVESTIGATIONS

    found = [{"name": q.name, "doc": q.doc, "takes": list(q.parameters), "is_drawn": q.is_drawn} for q in INVESTIGATIONS.values()]
    if is_json:
        output.print_json(found)
    else:
        output.print_table("", ("query", "answers", "takes"), [(q["name"], q["doc"], ", ".join(q["takes"])) for q in found])  # type: ignore[arg-type]
    return exits.OK


def _login(context: Context, shows_password: bool, is_json: bool) -> int:
    neo4j = context.settings.neo4j
    is_local = "neo4j" in context.stack.local_parts()
    where = f'"neo4j" in {context.stack.state.folder / "secrets.json"}' if is_local else "TIDEMARK_NEO4J__PASSWORD"
    secret = neo4j.password.get_secret_value() if neo4j.password is not None else ""
    found = {
        "browser": neo4j.browser_url,
        "uri": neo4j.uri,
        "user": neo4j.user,
        "database": neo4j.database,
        "password_is_in": where,
    }
    if shows_password:
        found["password"] = secret
    if is_json:
        output.print_json(found)
        return exits.OK
    output.print_fields(found)
    if not shows_password:
        output.result("[dim]--show-password shows it here.[/]")
    return exits.OK
