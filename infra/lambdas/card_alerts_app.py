"""The card alerts function as Lambda calls it. Settings come from the function's variables, as everywhere (`TIDEMARK_...`)."""

from __future__ import annotations

import sys
import time
from functools import cache
from typing import Any

from confluent_kafka import KafkaException

from infra.clients import Clients
from infra.kafka.producer import TrackedProducer
from infra.lambdas.card_alert_stores import DynamoAlerts, PostgresAlerts
from infra.lambdas.card_alerts import CardAlerts
from infra.lambdas.kafka_event import records_of
from infra.payloads import S3Payloads
from infra.settings import load_settings
from schema_registry.record_codec import RecordCodec

_ACKNOWLEDGED_S = 15.0  # below the function's own time limit, so that it can say what does not answer


@cache
def _alerts() -> CardAlerts:
    """Made at the first call of an environment, kept while it is warm."""
    settings = load_settings()
    clients = Clients(settings)
    return CardAlerts(
        RecordCodec(clients.catalog),
        settings.card_alerts.threshold,
        PostgresAlerts(settings.card_alerts_dsn),
        DynamoAlerts(clients.aws("dynamodb"), settings.card_alerts.table),
        TrackedProducer(clients.kafka, _ACKNOWLEDGED_S),
        S3Payloads(clients.s3, settings.s3.bucket),
    )


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle one batch of a Kafka event-source mapping on `score-events`. A call that raises comes again whole."""
    started = time.monotonic()
    try:
        report = _alerts().handle(records_of(event))
    except KafkaException:
        # A client that has failed for good (a right that was missing for a moment) stays so: the next call makes another.
        _alerts.cache_clear()
        raise
    if report.refused:
        sys.stdout.write(f"refused, in quarantine: {dict(report.refused)}\n")
    sys.stdout.write(report.line(time.monotonic() - started, round(time.time() * 1000)) + "\n")
    return report.answer()
