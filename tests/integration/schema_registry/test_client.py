"""The registry and the code must agree: on a real registry, with contracts of our own beside the shipped ones."""

from __future__ import annotations

import copy
import json
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from schema_registry import catalog, client
from schema_registry.client import COMPATIBILITY, Registry
from schema_registry.contracts import Contract, contracts
from schema_registry.errors import IncompatibleSchema, RegistryError

OPTIONAL = {"name": "note", "type": ["null", "string"], "default": None, "doc": "d", "pii": "none"}


@pytest.fixture
def registry(registry_url: str) -> Registry:
    return Registry({"url": registry_url})


@pytest.fixture
def raw(registry_url: str) -> SchemaRegistryClient:
    return SchemaRegistryClient({"url": registry_url})


@pytest.fixture
def contract(monkeypatch: pytest.MonkeyPatch) -> Contract:
    """The only contract that the code knows in this test."""
    name = f"Test{uuid4().hex[:8]}"
    schema = {**copy.deepcopy(contracts()["WalletFrozen"].latest), "name": name}
    return known(monkeypatch, Contract(name, (schema,)))


def known(monkeypatch: pytest.MonkeyPatch, contract: Contract) -> Contract:
    for module in (client, catalog):
        monkeypatch.setattr(module, "contracts", lambda: {contract.name: contract})
    return contract


def grown(contract: Contract, *fields: dict[str, Any]) -> Contract:
    newer = copy.deepcopy(contract.latest)
    newer["fields"] += fields
    return Contract(contract.name, (*contract.schemas, newer))


def test_every_shipped_contract_is_registered_once_under_full_transitive(registry: Registry, raw: SchemaRegistryClient) -> None:
    first, second = registry.establish(), registry.establish()
    for name, contract in contracts().items():
        assert first.latest_id(name) == second.latest_id(name)
        assert registry.versions(contract.subject) == list(contract.schemas)
    assert raw.get_compatibility() == COMPATIBILITY
    assert registry.catalog().latest_id("WalletFrozen") == first.latest_id("WalletFrozen")


def test_work_does_not_begin_before_the_contracts_are_there(registry: Registry, contract: Contract) -> None:
    with pytest.raises(RegistryError, match=rf"{contract.subject} is not registered; run `tidemark up`"):
        registry.catalog()


def test_a_later_version_is_added_and_both_ids_are_known(registry: Registry, contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    old = registry.establish().latest_id(contract.name)
    known(monkeypatch, grown(contract, OPTIONAL))
    found = registry.establish()
    assert found.ids_of(contract.name) == {old, found.latest_id(contract.name)}
    assert found.version(old).schema_version == 1


def test_a_change_that_breaks_readers_is_explained_before_the_registry_is_asked(
    registry: Registry, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.establish()
    known(monkeypatch, grown(contract, {"name": "must", "type": "string", "doc": "d", "pii": "none"}))
    with pytest.raises(IncompatibleSchema, match="must: new readers could not read old records"):
        registry.establish()
    assert len(registry.versions(contract.subject)) == 1


def test_the_registry_itself_refuses_such_a_change_too(registry: Registry, raw: SchemaRegistryClient, contract: Contract) -> None:
    registry.establish()
    broken = copy.deepcopy(contract.latest)
    broken["fields"].append({"name": "must", "type": "string"})
    with pytest.raises(Exception, match=r"(?i)incompatible|409"):
        raw.register_schema(contract.subject, Schema(json.dumps(broken), "AVRO"))


def test_a_registry_with_another_history_is_refused_with_the_first_difference(
    registry: Registry, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.establish()
    other = copy.deepcopy(contract.latest)
    other["fields"][1]["doc"] = "something else"
    known(monkeypatch, Contract(contract.name, (other,)))
    with pytest.raises(RegistryError, match=r"version 1: the registry holds another schema: field reason differs"):
        registry.catalog()


def test_code_that_is_older_than_the_registry_is_told_to_upgrade(
    registry: Registry, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, grown(contract, OPTIONAL))
    registry.establish()
    known(monkeypatch, contract)
    with pytest.raises(RegistryError, match=r"holds 2 versions, this code knows 1: newer code has written there"):
        registry.establish()


def test_a_registry_that_is_away_is_named_with_what_to_do() -> None:
    with pytest.raises(RegistryError, match=r"the schema registry at http://127.0.0.1:1 does not answer .*`tidemark doctor`"):
        Registry({"url": "http://127.0.0.1:1"}).catalog()
