"""Commands for contracts and layouts: schemas list, show and check, warehouse ddl."""

from __future__ import annotations

import json as json_module
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli import exits, output
from infra.cli.app import PROOF, command, group
from infra.cli.context import Context
from infra.cli.stack_commands import Json

if TYPE_CHECKING:
    from schema_registry.contracts import Contract

schemas = group("schemas", "Look at the contracts of the log, and check a change before it is made.", PROOF)
warehouse = group("warehouse", "The warehouse's layout.", PROOF)


class Dialect(StrEnum):
    """SQL to write."""

    postgresql = "postgresql"
    redshift = "redshift"


@command("list", of=schemas, examples=["tidemark schemas list", "tidemark schemas list --registry"])
def list_schemas(
    registry: Annotated[bool, typer.Option("--registry", help="Ask the registry too how many versions it holds.")] = False,
    json: Json = False,
) -> int:
    """List every contract: topic, versions, fields, and how many of them tell of people."""
    from schema_registry.contracts import contracts

    held: dict[str, int] = {}
    if registry:
        client = Context().need("registry").clients.registry
        held = {name: len(client.versions(contract.subject)) for name, contract in contracts().items()}
    found = [_summary(contract) | ({"registered": held[name]} if registry else {}) for name, contract in contracts().items()]
    if json:
        output.print_json(found)
        return exits.OK
    columns = ["name", "topic", "versions", "fields", "pii", *(["registered"] if registry else [])]
    output.print_table("", columns, [[row[column] for column in columns] for row in found], right=columns[2:])
    return exits.OK


@command(
    "show",
    of=schemas,
    examples=[
        "tidemark schemas show TransactionRecorded",
        "tidemark schemas show AlertRaised --schema-version 1 --json",
    ],
)
def show_schema(
    name: Annotated[str, typer.Argument(help="Contract.")],
    schema_version: Annotated[int | None, typer.Option(min=1, help="Version; by default the latest.")] = None,
    json: Json = False,
) -> int:
    """Show a contract's fields: type, unit, what they tell of people, and what they mean. --json prints the Avro schema."""
    from schema_registry.contracts import fields

    contract = contract_of(name)
    version = schema_version or len(contract.schemas)
    if version > len(contract.schemas):
        raise typer.BadParameter(f"{name} has {len(contract.schemas)} versions", param_hint="--schema-version")
    schema = contract.schemas[version - 1]
    if json:
        output.print_json(schema)
        return exits.OK
    output.result(f"[bold]{output.safe(name)}[/] version {version} of {len(contract.schemas)}, topic {output.safe(contract.topic)}")
    output.result(output.safe(schema.get("doc", "")))
    rows = [(field.path, field.type, field.unit or "", "" if field.pii == "none" else field.pii, field.doc) for field in fields(schema)]
    output.print_table("", ("field", "type", "unit", "pii", "meaning"), rows)
    return exits.OK


@command(
    "check",
    of=schemas,
    examples=["tidemark schemas check TransactionRecorded.v2.avsc", "tidemark schemas check draft.avsc --json"],
)
def check_schema(file: Annotated[Path, typer.Argument(help="A new version of a contract, as Avro JSON.")], json: Json = False) -> int:
    """Check a new schema against the whole history of its contract: every version must read every other."""
    from schema_registry.compatibility import check
    from schema_registry.errors import IncompatibleSchema

    new = _parsed(file)
    contract = contract_of(str(new.get("name")))
    problems: list[str] = []
    is_known = new in contract.schemas
    for version, old in enumerate(contract.schemas, 1):
        try:
            check(old, new, f"against version {version}")
        except IncompatibleSchema as error:
            problems.append(str(error))
    if json:
        output.print_json(
            {
                "contract": contract.name,
                "versions": len(contract.schemas),
                "is_known": is_known,
                "ok": not problems,
                "problems": problems,
            }
        )
    elif problems:
        for problem in problems:
            output.result(f"[red]{output.safe(problem)}[/]")
    else:
        said = "is a version of this contract already" if is_known else f"may become version {len(contract.schemas) + 1}"
        output.result(f"[green]{output.safe(contract.name)}[/]: {output.safe(file)} {said}; every version can read every other.")
    return exits.FAILED if problems else exits.OK


@command(
    "ddl",
    of=warehouse,
    examples=["tidemark warehouse ddl --dialect redshift > warehouse.sql", "tidemark warehouse ddl"],
)
def ddl(dialect: Annotated[Dialect, typer.Option(help="SQL to write.")] = Dialect.postgresql) -> int:
    """Print the SQL that makes one generation of the warehouse: tables, views, feature view."""
    from projections.warehouse import ddl as script

    print(script(dialect.value), end="")
    return exits.OK


def contract_of(name: str) -> Contract:
    """The contract of a name.

    Raises:
        SchemaError: there is none.
    """
    from difflib import get_close_matches

    from schema_registry.contracts import contracts
    from schema_registry.errors import SchemaError

    found = contracts().get(name)
    if found is None:
        near = get_close_matches(name, contracts(), 1)
        hint = f": did you mean {near[0]}?" if near else ": `tidemark schemas list` shows them"
        raise SchemaError(f"no contract is named {name[:60]!r}{hint}")
    return found


def _parsed(file: Path) -> dict[str, Any]:
    from schema_registry.errors import SchemaError

    try:
        found = json_module.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SchemaError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SchemaError(f"{file}: is no JSON: {error}") from None
    if not isinstance(found, dict) or found.get("type") != "record" or not isinstance(found.get("fields"), list):
        raise SchemaError(f"{file}: expected an Avro record with its fields")
    return found


def _summary(contract: Contract) -> dict[str, Any]:
    from schema_registry.contracts import fields

    found = list(fields(contract.latest))
    personal = sum(field.pii != "none" for field in found)
    return {
        "name": contract.name,
        "topic": contract.topic,
        "versions": len(contract.schemas),
        "fields": len(found),
        "pii": personal,
    }
