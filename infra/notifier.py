"""The notifier: each new alert goes to SNS, and from there to the queue that case tools read. At least once, each with a stable id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from projections.errors import StoreUnavailable
from projections.protocol import EventBatch
from projections.work import Effect
from schema_registry.contracts import CASE_EVENTS

TOPIC = "tidemark-alerts"
QUEUE = "tidemark-alerts"
_FIELDS = ("case_id", "wallet_id", "reason", "score", "tx_id", "explanation", "model_version", "known_at", "rules", "policy")


class Notifier:
    """A reactor to `AlertRaised`.

    Args:
        sns, sqs: boto3 clients.
    """

    name = "notifier"
    topics: tuple[str, ...] = (CASE_EVENTS,)
    reads: Mapping[str, tuple[str, ...]] = {"AlertRaised": _FIELDS}

    def __init__(self, sns: Any, sqs: Any) -> None:
        self._sns, self._sqs = sns, sqs
        self._topic_arn: str | None = None

    def effects(self, events: EventBatch) -> list[Effect]:
        """One message an alert."""
        table = events.tables.get("AlertRaised")
        if table is None:
            return []
        rows = table.select(list(_FIELDS)).to_pylist()
        return [Effect(f"alert/{row['case_id']}", partial(self._publish, row)) for row in rows]

    def prepare(self) -> str:
        """Make the topic, the queue and the subscription where they are missing; all three calls are idempotent.

        Returns:
            The queue's URL.

        Raises:
            StoreUnavailable: AWS does not answer.
        """
        try:
            self._topic_arn = self._sns.create_topic(Name=TOPIC)["TopicArn"]
            queue_url: str = self._sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
            attributes = self._sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]
            self._sns.subscribe(
                TopicArn=self._topic_arn, Protocol="sqs", Endpoint=attributes["QueueArn"], Attributes={"RawMessageDelivery": "true"}
            )
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"SNS and SQS do not answer: {error}") from error
        return queue_url

    def _publish(self, row: dict[str, Any]) -> None:
        message = {**row, "known_at": row["known_at"].isoformat(), "effect_id": f"alert/{row['case_id']}"}
        try:
            if self._topic_arn is None:
                self.prepare()
            self._sns.publish(
                TopicArn=self._topic_arn,
                Message=json.dumps(message, sort_keys=True),
                MessageAttributes={"effect_id": {"DataType": "String", "StringValue": message["effect_id"]}},
            )
        except (ClientError, BotoCoreError) as error:
            self._topic_arn = None  # a double that was restarted has forgotten its topics: make them again at the next attempt
            raise StoreUnavailable(f"SNS does not take the alert {row['case_id']}: {error}") from error
