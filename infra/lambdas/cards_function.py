"""The card alerts function on this stack: its tables, its worker, its mapping on `score-events`, and whether both stores hold the same."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from threading import Event
from typing import Any

from infra.composition import Composition
from infra.kafka.source import KafkaSource
from infra.kafka.transactions import KafkaTransactions
from infra.lambdas.card_alert_stores import DynamoAlerts, PostgresAlerts
from infra.lambdas.card_alerts import CARD_ALERTS, CardAlert
from infra.lambdas.event_source import Delivered
from infra.lambdas.functions import FUNCTIONS
from infra.lambdas.kafka_source import DEFAULTS, KafkaEventSource, KafkaSourceOptions
from infra.lambdas.runtime import Invocation
from infra.lambdas.serving import keep_serving
from infra.settings import Settings
from infra.stack import Stack
from schema_registry.contracts import SCORE_EVENTS

GROUP = f"tidemark-{CARD_ALERTS}"
NEEDS = ("kafka", "registry", "s3", "postgres", "aws")


@dataclass(frozen=True, slots=True)
class AlertsHeld:
    """How many alerts the table of the relational store and DynamoDB hold, and whether they are the same, value by value."""

    table: int
    dynamodb: int
    are_same: bool

    def as_json(self) -> dict[str, Any]:
        """The counts as plain values."""
        return asdict(self)


def with_threshold(settings: Settings, threshold: float | None) -> Settings:
    """The settings with another threshold, the same without one."""
    if threshold is None:
        return settings
    return settings.model_copy(update={"card_alerts": settings.card_alerts.model_copy(update={"threshold": threshold})})


def prepare(composition: Composition) -> None:
    """Make both tables where they are missing, and give DynamoDB what the other one holds and it lacks: AWS' double forgets its own with
    each restart. Safe to repeat, and after it was cut off.

    Raises:
        StoreUnavailable, ProjectionError: a store does not answer, or refuses.
    """
    table, items = _stores(composition)
    try:
        table.prepare()
        items.prepare()
        known = {alert.key for alert in items.all()}
        items.put([alert for alert in table.latest() if alert.key not in known])
    finally:
        table.close()


def start(stack: Stack, threshold: float | None = None) -> None:
    """Keep the function running beside the stack's workers; another threshold than before restarts it."""
    given = ["--threshold", repr(threshold)] if threshold is not None else []
    stack.start_worker(CARD_ALERTS, [sys.executable, "-m", "infra.cli", "cards", "serve", *given])


def serve(
    composition: Composition,
    stop: Event,
    options: KafkaSourceOptions = DEFAULTS,
    on_call: Callable[[Invocation], None] = lambda invocation: None,
) -> Delivered:
    """Feed the function from `score-events` until `stop`. Returns what was done.

    Raises:
        Fenced: another process serves it now.
        ProjectionError: a store refuses to have its table made.
    """
    settings, clients = composition.settings, composition.clients
    delivered = Delivered()

    def waited(seconds: float) -> None:
        stop.wait(seconds)

    def mapping(call: Callable[[dict[str, Any]], Any]) -> KafkaEventSource:
        prepare(composition)
        # Who comes last fences the one before, at its next commit.
        positions = KafkaTransactions(clients.kafka, GROUP, GROUP, (SCORE_EVENTS,), clients.admin)
        source = KafkaSource(clients.kafka, (SCORE_EVENTS,), GROUP, f"{GROUP}-1", is_alone=True, partitions=composition.partitions)
        return KafkaEventSource(
            source, positions, settings.kafka.bootstrap or "", call, CARD_ALERTS, options,
            stopped=stop.is_set, sleep=waited, delivered=delivered,
        )  # fmt: skip

    keep_serving(FUNCTIONS[CARD_ALERTS], settings, mapping, stop, on_call)
    return delivered


def held(composition: Composition) -> AlertsHeld:
    """What both stores hold now.

    Raises:
        StoreUnavailable, ProjectionError: one does not answer, or has no table yet.
    """
    table, items = _stores(composition)
    try:
        rows, found = table.latest(), items.all()
    finally:
        table.close()
    return AlertsHeld(len(rows), len(found), {row.key: row for row in rows} == {item.key: item for item in found})


def latest(composition: Composition, limit: int | None) -> list[CardAlert]:
    """The newest alerts of the relational store, all without a limit. Errors as `held`."""
    table, _ = _stores(composition)
    try:
        return table.latest(limit)
    finally:
        table.close()


def _stores(composition: Composition) -> tuple[PostgresAlerts, DynamoAlerts]:
    settings = composition.settings
    return PostgresAlerts(settings.card_alerts_dsn), DynamoAlerts(composition.clients.aws("dynamodb"), settings.card_alerts.table)
