"""Contracts: for each event type its schema versions, the topic it lives on, and the tags of its fields.

A version is a file under `avsc/`, kept for ever. The subject is the record's full name (RecordNameStrategy), so the same
contract serves the command topic and the event topic.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

NAMESPACE = "tidemark"

TRANSACTION_EVENTS = "transaction-events"
WALLET_EVENTS = "wallet-events"
SCORE_EVENTS = "score-events"
RESCORE_EVENTS = "rescore-events"
EMBEDDING_EVENTS = "embedding-events"
CASE_EVENTS = "case-events"
CONTROL_EVENTS = "control-events"
CLICKSTREAM_EVENTS = "clickstream-events"
PRICE_EVENTS = "price-events"
COMMANDS = "commands"
COMMAND_RESULTS = "command-results"
QUARANTINE_EVENTS = "quarantine-events"

EVENT_TOPICS = (
    TRANSACTION_EVENTS, WALLET_EVENTS, SCORE_EVENTS, RESCORE_EVENTS, EMBEDDING_EVENTS, CASE_EVENTS, CONTROL_EVENTS, CLICKSTREAM_EVENTS,
    PRICE_EVENTS,
)  # fmt: skip
"""Topics whose records are facts; the archive keeps them all, and the quarantine."""

PARTITIONS: Mapping[str, int] = {
    **dict.fromkeys(EVENT_TOPICS, 6),
    QUARANTINE_EVENTS: 6,
    COMMANDS: 1,  # its arrival order is the one total order
    COMMAND_RESULTS: 1,
}

ORDERED_BY_SEQ = (TRANSACTION_EVENTS, SCORE_EVENTS, RESCORE_EVENTS, EMBEDDING_EVENTS)
"""Topics whose records carry all the order that a reader needs, so that they may get more partitions: elsewhere a key's order is that of
its partition."""

TOPIC_BY_EVENT_TYPE: Mapping[str, str] = {
    "TransactionRecorded": TRANSACTION_EVENTS,
    **dict.fromkeys(
        (
            "WalletDescribed", "WalletLabelled", "TransactionLabelled", "WalletFrozen", "WalletReleased",
            "TransactionHeld", "TransactionReleased", "TransactionVoided",
        ),
        WALLET_EVENTS,
    ),
    "TransactionScored": SCORE_EVENTS,
    "TransactionRescored": RESCORE_EVENTS,  # apart: of the live scores each seq has one, in order
    "WalletEmbedded": EMBEDDING_EVENTS,
    **dict.fromkeys(
        ("AlertRaised", "AlertExtended", "CaseOpened", "CaseAssigned", "VerdictReached", "CaseClosed"), CASE_EVENTS
    ),
    **dict.fromkeys(
        ("ModelTrained", "ModelDeployed", "PolicyChanged", "GenerationSwapped", "FeaturesRestated", "TopicGrown"), CONTROL_EVENTS
    ),
    "StorefrontEventRecorded": CLICKSTREAM_EVENTS,
    "AssetPriced": PRICE_EVENTS,
    "CommandsHandled": COMMAND_RESULTS,
    "RecordQuarantined": QUARANTINE_EVENTS,
    "QuarantineReplayed": QUARANTINE_EVENTS,
    "QuarantineDropped": QUARANTINE_EVENTS,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contract:
    """One event type or command: `schemas[v - 1]` is its version v as parsed JSON."""

    name: str
    schemas: tuple[dict[str, Any], ...]

    @property
    def subject(self) -> str:
        return f"{NAMESPACE}.{self.name}"

    @property
    def topic(self) -> str:
        """Where its records are appended: commands go to the one command topic."""
        return TOPIC_BY_EVENT_TYPE.get(self.name, COMMANDS)

    @property
    def is_command(self) -> bool:
        return bool(self.latest.get("command", False))

    @property
    def latest(self) -> dict[str, Any]:
        return self.schemas[-1]


@cache
def contracts() -> Mapping[str, Contract]:
    """Every contract by name, read once from `avsc/`."""
    versions: dict[str, dict[int, dict[str, Any]]] = {}
    for file in files("schema_registry").joinpath("avsc").iterdir():
        if file.name.endswith(".avsc"):
            name, version, _ = file.name.split(".")
            versions.setdefault(name, {})[int(version[1:])] = json.loads(file.read_text("utf-8"))
    return {
        name: Contract(name, tuple(by_version[v] for v in range(1, len(by_version) + 1))) for name, by_version in sorted(versions.items())
    }


@dataclass(frozen=True, slots=True)
class FieldTag:
    """A field's path with dots, its type in words, doc, unit and `pii` tag."""

    path: str
    type: str
    doc: str
    unit: str | None
    pii: str


def fields(schema: dict[str, Any], prefix: str = "") -> Iterator[FieldTag]:
    """Every leaf field of a record schema, nested groups flattened with dots."""
    for field in schema["fields"]:
        path = prefix + field["name"]
        branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
        inner = next(branch for branch in branches if branch != "null")
        if isinstance(inner, dict) and inner["type"] == "record":
            yield from fields(inner, path + ".")
            continue
        word = inner if isinstance(inner, str) else inner.get("logicalType", inner["type"])
        optional = "?" if len(branches) > 1 else ""
        yield FieldTag(path, f"{word}{optional}", field["doc"], field.get("unit"), field.get("pii", "none"))
