"""The ingestion function as Lambda calls it. Settings come from the function's variables, as everywhere (`TIDEMARK_...`)."""

from __future__ import annotations

import sys
import time
from functools import cache
from typing import Any

from confluent_kafka import KafkaException

from infra.clients import Clients
from infra.kafka.producer import TrackedProducer
from infra.lambdas.aws_parts import FirehoseLanding, SqsDeadLetters
from infra.lambdas.kinesis_ingestion import KinesisIngestion, records_of
from infra.payloads import S3Payloads
from infra.settings import load_settings
from schema_registry.record_codec import RecordCodec

_ACKNOWLEDGED_S = 15.0  # below the function's own time limit, so that it answers for single records


@cache
def _ingestion() -> KinesisIngestion:
    """Made at the first call of an environment, kept while it is warm."""
    settings = load_settings()
    clients = Clients(settings)
    return KinesisIngestion(
        RecordCodec(clients.catalog),
        TrackedProducer(clients.kafka, _ACKNOWLEDGED_S),
        FirehoseLanding(clients.aws("firehose"), settings.kinesis.landing),
        SqsDeadLetters.named(clients.aws("sqs"), settings.kinesis.dead_letters),
        S3Payloads(clients.s3, settings.s3.bucket),
    )


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle one batch of a Kinesis event-source mapping with `ReportBatchItemFailures`."""
    started = time.monotonic()
    try:
        report = _ingestion().handle(records_of(event))
    except KafkaException:
        # A client that has failed for good (a right that was missing for a moment) stays so: the next call makes another.
        _ingestion.cache_clear()
        raise
    if report.problem is not None:
        sys.stdout.write(f"not done from {report.not_done} on: {report.problem}\n")
    sys.stdout.write(report.line(time.monotonic() - started, round(time.time() * 1000)) + "\n")
    return report.answer()
