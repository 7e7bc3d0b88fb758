"""Which schema ids mean which contract: what the codecs need to know of the registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schema_registry.contracts import Contract, contracts
from schema_registry.errors import UndecodableRecord


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """A contract at one version."""

    contract: Contract
    schema_version: int

    @property
    def schema(self) -> dict[str, Any]:
        return self.contract.schemas[self.schema_version - 1]


class SchemaCatalog:
    """Schema ids ↔ contracts, fixed at start: every version that the code knows is registered before work begins.

    Args:
        ids: contract name → schema id of each version, version 1 first.
    """

    def __init__(self, ids: Mapping[str, tuple[int, ...]]) -> None:
        self._version_by_id: dict[int, SchemaVersion] = {}
        self._latest_id: dict[str, int] = {}
        for name, by_version in ids.items():
            contract = contracts()[name]
            for index, schema_id in enumerate(by_version):
                self._version_by_id[schema_id] = SchemaVersion(contract, index + 1)
            self._latest_id[name] = by_version[-1]

    @classmethod
    def numbered(cls) -> SchemaCatalog:
        """A catalogue with made-up ids, for work without a registry (tests, dry runs)."""
        number = iter(range(1, 1 << 20))
        return cls({name: tuple(next(number) for _ in contract.schemas) for name, contract in contracts().items()})

    def version(self, schema_id: int) -> SchemaVersion:
        """The contract behind a schema id.

        Raises:
            UndecodableRecord: `unknown_schema_id`: no contract of this code has it.
        """
        try:
            return self._version_by_id[schema_id]
        except KeyError:
            raise UndecodableRecord(
                "unknown_schema_id",
                f"expected a schema id of one of {len(self._latest_id)} known contracts, found {schema_id}",
            ) from None

    def ids_of(self, name: str) -> frozenset[int]:
        """Every schema id of a contract, all versions."""
        return frozenset(i for i, version in self._version_by_id.items() if version.contract.name == name)

    def schemas(self) -> dict[int, str]:
        """Every schema by id, as JSON."""
        return {schema_id: json.dumps(version.schema) for schema_id, version in sorted(self._version_by_id.items())}

    def latest_id(self, name: str) -> int:
        """The schema id that new records of a contract carry.

        Raises:
            KeyError: no such contract.
        """
        return self._latest_id[name]
