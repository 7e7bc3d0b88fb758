"""Messages to an SNS topic, ten a call, each with the id of the effect that it tells of: a receiver that gets one twice knows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from infra.lambdas.batches import batches
from projections.errors import StoreUnavailable

_SNS_MESSAGES, _SNS_BYTES = 10, 250_000  # of one PublishBatch


def topic_arn(sns: Any, topic: str) -> str:
    """The ARN of the topic of this name, made where there is none: the call answers the same either way.

    Raises:
        StoreUnavailable: SNS does not answer, or refuses.
    """
    try:
        return str(sns.create_topic(Name=topic)["TopicArn"])
    except (ClientError, BotoCoreError) as error:
        raise StoreUnavailable(f"the topic {topic} cannot be found: {error}") from error


def publish(sns: Any, arn: str, messages: Iterable[tuple[str, str]]) -> None:
    """Publish texts, each with its effect's id.

    Raises:
        StoreUnavailable: SNS does not answer, or refuses one. Those before it may have gone out.
    """
    for part in batches(list(messages), _SNS_MESSAGES, _SNS_BYTES, lambda item: len(item[1])):
        entries = [
            {
                "Id": str(at), "Message": body,
                # An attribute may hold fewer characters than an id.
                "MessageAttributes": {"effect_id": {"DataType": "String", "StringValue": quote(effect_id, safe="/:@")}},
            }
            for at, (effect_id, body) in enumerate(part)
        ]  # fmt: skip
        try:
            answer = sns.publish_batch(TopicArn=arn, PublishBatchRequestEntries=entries)
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"SNS does not take alerts: {error}") from error
        if answer.get("Failed"):
            raise StoreUnavailable(f"SNS refused {len(answer['Failed'])} alerts: {answer['Failed'][0].get('Message')}")
