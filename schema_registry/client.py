"""The registry: every contract of the code is registered there under FULL_TRANSITIVE, and both must agree before work begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.common._httpx_compat import httpx
from confluent_kafka.schema_registry.error import SchemaRegistryError

from schema_registry.catalog import SchemaCatalog
from schema_registry.compatibility import check
from schema_registry.contracts import Contract, contracts
from schema_registry.errors import RegistryError

COMPATIBILITY = "FULL_TRANSITIVE"
"""Every version can read every other: the log is kept for ever and is read by old and new code at once."""

_NOT_FOUND = 404
_CONFLICT = 409
_T = TypeVar("_T")


class Registry:
    """A Confluent-compatible schema registry.

    Args:
        config: options of confluent_kafka's SchemaRegistryClient (`url`, and credentials where needed).
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._client = SchemaRegistryClient(config)
        self._url = config["url"]

    def establish(self) -> SchemaCatalog:
        """Register every contract that is missing and return the catalogue of ids.

        Raises:
            RegistryError: the registry does not answer, lacks `COMPATIBILITY`, or holds another history of a contract.
        """
        self._call(lambda: self._client.set_compatibility(level=COMPATIBILITY))
        mode = self._call(lambda: self._client.get_compatibility())
        if mode != COMPATIBILITY:
            raise RegistryError(f"{self._url}: expected compatibility {COMPATIBILITY}, found {mode}")
        with ThreadPoolExecutor(4) as pool:
            ids = dict(zip(contracts(), pool.map(self._establish_contract, contracts().values()), strict=True))
        return SchemaCatalog(ids)

    def catalog(self) -> SchemaCatalog:
        """The catalogue of a registry that was established before; nothing is written.

        Raises:
            RegistryError: the registry does not answer, or disagrees with the code.
        """
        with ThreadPoolExecutor(4) as pool:
            ids = dict(zip(contracts(), pool.map(self._agreed_ids, contracts().values()), strict=True))
        return SchemaCatalog(ids)

    def versions(self, subject: str) -> list[dict[str, Any]]:
        """The schemas that the registry holds of a subject, oldest first; empty for an unknown one.

        Raises:
            RegistryError: the registry does not answer.
        """
        return [schema for _, schema in self._held(subject)]

    def _establish_contract(self, contract: Contract) -> tuple[int, ...]:
        held = self._held(contract.subject)
        for index, schema in enumerate(contract.schemas[len(held) :], len(held)):
            earlier = contract.schemas[:index]
            for version, old in enumerate(earlier, 1):
                check(old, schema, f"{contract.subject} version {index + 1} against version {version}")
            text = Schema(json.dumps(schema), "AVRO")
            self._call(partial(self._client.register_schema, contract.subject, text))
        return self._agreed_ids(contract)

    def _agreed_ids(self, contract: Contract) -> tuple[int, ...]:
        held = self._held(contract.subject)
        if not held:
            raise RegistryError(f"{self._url}: {contract.subject} is not registered; run `tidemark up`")
        if len(held) > len(contract.schemas):
            raise RegistryError(
                f"{contract.subject}: the registry holds {len(held)} versions, this code knows {len(contract.schemas)}: "
                "newer code has written there; upgrade this one"
            )
        for version, (ours, (_, theirs)) in enumerate(zip(contract.schemas, held, strict=False), 1):
            if ours != theirs:
                raise RegistryError(f"{contract.subject} version {version}: the registry holds another schema: {_difference(ours, theirs)}")
        return tuple(schema_id for schema_id, _ in held)

    def _held(self, subject: str) -> list[tuple[int, dict[str, Any]]]:
        try:
            numbers = self._client.get_versions(subject)
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                return []
            raise RegistryError(f"{self._url}: {error.error_message}") from error
        except (OSError, httpx.HTTPError) as error:
            raise self._away(error) from error
        found = [self._call(partial(self._client.get_version, subject, number)) for number in sorted(numbers)]
        return [(int(version.schema_id or 0), json.loads(version.schema.schema_str or "")) for version in found]

    def _call(self, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except SchemaRegistryError as error:
            what = "the change breaks compatibility" if error.http_status_code == _CONFLICT else "the registry refuses"
            raise RegistryError(f"{self._url}: {what}: {error.error_message}") from error
        except (OSError, httpx.HTTPError) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> RegistryError:
        return RegistryError(f"the schema registry at {self._url} does not answer ({error}); `tidemark doctor` says what is down")


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """The first difference in words: a field that one side lacks, or one that differs."""
    our_fields = {field["name"]: field for field in ours.get("fields", ())}
    their_fields = {field["name"]: field for field in theirs.get("fields", ())}
    for name in [*our_fields, *their_fields]:
        if name not in their_fields:
            return f"field {name} is missing there"
        if name not in our_fields:
            return f"field {name} is unknown here"
        if our_fields[name] != their_fields[name]:
            return f"field {name} differs"
    return "documentation or attributes of the record differ"
