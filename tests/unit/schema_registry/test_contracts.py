"""The contracts themselves: documented, tagged, placed on a topic, and equal to the domain's dataclasses."""

from __future__ import annotations

import dataclasses
import typing
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest

from domain import commands, events
from schema_registry.catalog import SchemaCatalog
from schema_registry.contracts import COMMANDS, NAMESPACE, PARTITIONS, TOPIC_BY_EVENT_TYPE, contracts, fields
from schema_registry.errors import UndecodableRecord

PII = {"none", "pseudonym", "indirect", "direct", "sealed"}
IN_THE_DOMAIN = {
    name: getattr(module, name)
    for module in (commands, events)
    for name in contracts()
    if dataclasses.is_dataclass(getattr(module, name, None))
}


@pytest.mark.parametrize("name", sorted(contracts()))
def test_every_field_is_documented_and_tagged(name: str) -> None:
    contract = contracts()[name]
    assert contract.latest["namespace"] == NAMESPACE
    assert contract.latest["doc"]

    def check(schema: dict[str, Any]) -> None:
        for field in schema["fields"]:
            assert len(field["doc"]) > 5, f"{name}.{field['name']}"
            inner = next(b for b in (field["type"] if isinstance(field["type"], list) else [field["type"]]) if b != "null")
            items = inner["items"] if isinstance(inner, dict) and inner["type"] == "array" else inner
            if isinstance(items, dict) and items["type"] == "record":
                check(items)
            else:
                assert field["pii"] in PII, f"{name}.{field['name']}"

    check(contract.latest)
    assert all(tag.doc and tag.pii in PII for tag in fields(contract.latest))


def test_ids_of_people_are_tagged() -> None:
    tags = {(name, tag.path): tag.pii for name in contracts() for tag in fields(contracts()[name].latest)}
    for (name, path), pii in tags.items():
        if path.rsplit(".", 1)[-1] in {"wallet_id", "source_wallet_id", "target_wallet_id", "tx_id"}:
            assert pii != "none", f"{name}.{path}"


@pytest.mark.parametrize("name", sorted(IN_THE_DOMAIN))
def test_a_dataclass_has_the_fields_of_its_schema_in_its_order(name: str) -> None:
    assert _paths(IN_THE_DOMAIN[name]) == [(field["name"], _word(field["type"])) for field in contracts()[name].latest["fields"]]


def test_every_command_and_event_of_the_domain_has_a_contract() -> None:
    known = {*typing.get_args(commands.Command), *typing.get_args(events.DomainEvent), events.TransactionRecorded}
    assert {kind.__name__ for kind in known if isinstance(kind, type)} <= set(contracts())


def test_enums_of_the_domain_have_the_symbols_of_the_schemas() -> None:
    seen = set()
    for name in contracts():
        for field in contracts()[name].latest["fields"]:
            kind = field["type"]
            if isinstance(kind, dict) and kind["type"] == "enum" and hasattr(events, kind["name"]):
                assert [symbol.value for symbol in getattr(events, kind["name"])] == kind["symbols"]
                seen.add(kind["name"])
    assert seen >= {"TransactionKind", "TransactionStatus", "Label", "AlertReason", "Verdict", "WalletKind"}


def test_commands_go_to_the_one_command_topic_and_events_to_their_own() -> None:
    assert PARTITIONS[COMMANDS] == 1
    for contract in contracts().values():
        assert contract.topic in PARTITIONS
        assert (contract.name in TOPIC_BY_EVENT_TYPE) != contract.is_command
        assert contract.subject == f"{NAMESPACE}.{contract.name}"


def test_a_catalogue_knows_its_ids_both_ways() -> None:
    catalog = SchemaCatalog.numbered()
    for name in contracts():
        assert catalog.version(catalog.latest_id(name)).contract.name == name
        assert len(catalog.ids_of(name)) == len(contracts()[name].schemas) and max(catalog.ids_of(name)) == catalog.latest_id(name)
    with pytest.raises(UndecodableRecord, match=r"one of .* known contracts, found 0"):
        catalog.version(0)


_WORDS = {
    str: "string",
    int: "number",
    float: "number",
    bytes: "bytes",
    Decimal: "decimal",
    datetime: "timestamp-micros",
}


def _paths(kind: Any) -> list[tuple[str, str]]:
    hints = typing.get_type_hints(kind)
    return [(field.name, _hint(hints[field.name])) for field in dataclasses.fields(kind)]


def _hint(hint: Any) -> str:
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    if type(None) in typing.get_args(hint):
        return _hint(options[0]) + "?"
    if typing.get_origin(hint) is tuple or dataclasses.is_dataclass(hint):
        return "record"
    return "enum" if issubclass(hint, Enum) else _WORDS[hint]


def _word(kind: Any) -> str:
    if isinstance(kind, list):
        return _word(kind[1]) + "?"
    if isinstance(kind, str):
        return "number" if kind in {"int", "long", "double", "float"} else kind
    return str(kind.get("logicalType", kind["type"]))
