"""The stream-alerts function as Lambda calls it. Settings come from the function's variables, as everywhere (`TIDEMARK_...`)."""

from __future__ import annotations

import sys
import time
from functools import cache
from typing import Any

import boto3

from infra.lambdas.sns_messages import publish, topic_arn
from infra.lambdas.stream_alerts import StreamAlertsReport, messages
from infra.settings import load_settings


@cache
def _topic() -> tuple[Any, str]:
    """Made at the first call of an environment, kept while it is warm."""
    settings = load_settings()
    sns = boto3.client("sns", **settings.aws.client_config())
    return sns, topic_arn(sns, settings.spark.alerts_topic)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Tell of one batch of the table's stream. A batch is done as a whole: what fails comes again."""
    started = time.monotonic()
    told = messages(event["Records"])
    if told:
        publish(*_topic(), told)
    report = StreamAlertsReport(len(event["Records"]), len(told))
    sys.stdout.write(report.line(time.monotonic() - started, round(time.time() * 1000)) + "\n")
    return {"batchItemFailures": []}
