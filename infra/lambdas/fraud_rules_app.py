"""The fraud-rules function as Lambda calls it. Settings come from the function's variables, as everywhere (`TIDEMARK_...`)."""

from __future__ import annotations

import sys
import time
from functools import cache
from typing import Any

from confluent_kafka import KafkaException

from domain.errors import LogError
from infra.clients import Clients
from infra.lambdas.checkpoints import CHECKPOINTS, DynamoCheckpoints
from infra.lambdas.fraud_rules import FRAUD_RULES, FraudRules
from infra.lambdas.fraud_rules_parts import KinesisPast, LogPolicy, SnsAlerts
from infra.lambdas.kinesis_ingestion import records_of
from infra.settings import load_settings
from schema_registry.record_codec import RecordCodec


@cache
def _rules() -> FraudRules:
    """Made at the first call of an environment, kept while it is warm."""
    settings = load_settings()
    clients = Clients(settings)
    return FraudRules(
        LogPolicy(clients.kafka, RecordCodec(clients.catalog)),
        KinesisPast(clients.aws("kinesis")),
        DynamoCheckpoints(clients.aws("dynamodb"), CHECKPOINTS, f"{FRAUD_RULES}/judged/"),
        SnsAlerts.named(clients.aws("sns"), settings.kinesis.rule_alerts),
    )


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Judge one batch of a Kinesis event-source mapping. A batch is done as a whole: what fails comes again."""
    started = time.monotonic()
    try:
        report = _rules().handle(records_of(event))
    except (KafkaException, LogError):
        # A client that has failed for good (a right that was missing for a moment) stays so: the next call makes another.
        _rules.cache_clear()
        raise
    for line in report.lines(time.monotonic() - started, round(time.time() * 1000)):
        sys.stdout.write(line + "\n")
    return {"batchItemFailures": []}
