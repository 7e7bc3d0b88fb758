"""The stream-alerts function on this stack: its mapping on the stream of the alerts' table."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.composition import Composition
from infra.lambdas.dynamo_source import DynamoEventSource
from infra.lambdas.event_source import Delivered
from infra.lambdas.functions import FUNCTIONS
from infra.lambdas.kinesis_road import prepare_checkpoints
from infra.lambdas.runtime import Invocation
from infra.lambdas.serving import checkpoints_of, keep_serving
from infra.lambdas.stream_alerts import STREAM_ALERTS
from projections.errors import StoreUnavailable


def untold(composition: Composition) -> int:
    """How many changes of the table the function has not taken yet, none where there is no table.

    On AWS itself none: there the mapping keeps its place to itself, and CloudWatch's `IteratorAge` says how far behind it is.

    Raises:
        StoreUnavailable: AWS does not answer.
    """
    clients = composition.clients
    if composition.settings.aws.is_itself:
        return 0
    streams, checkpoints = clients.aws("dynamodbstreams"), checkpoints_of(clients, STREAM_ALERTS)
    try:
        arn = clients.aws("dynamodb").describe_table(TableName=composition.settings.spark.alerts_table)["Table"]["LatestStreamArn"]
        prepare_checkpoints(clients)
        source = DynamoEventSource(streams, arn, lambda event: None, checkpoints)
        return source.waiting()
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ResourceNotFoundException":
            return 0
        raise StoreUnavailable(f"the stream of alerts cannot be read: {error}") from error


def serve(
    composition: Composition, stop: Event, on_call: Callable[[Invocation], None] = lambda invocation: None, once: bool = False
) -> Delivered:
    """Feed the function from the table's stream until `stop`; before the table is there it is waited for. Returns what was done.

    Args:
        once: stop at the first round that finds nothing.
    """
    settings, clients = composition.settings, composition.clients
    delivered = Delivered()

    def waited(seconds: float) -> None:
        stop.wait(seconds)

    def mapping(call: Callable[[dict[str, Any]], Any]) -> DynamoEventSource:
        prepare_checkpoints(clients)  # AWS' double forgets them with each restart
        try:
            table = clients.aws("dynamodb").describe_table(TableName=settings.spark.alerts_table)["Table"]
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(
                f"DynamoDB: {settings.spark.alerts_table} cannot be found: {error}; `tidemark spark score` makes it"
            ) from error
        return DynamoEventSource(
            clients.aws("dynamodbstreams"), table["LatestStreamArn"], call, checkpoints_of(clients, STREAM_ALERTS),
            stopped=stop.is_set, sleep=waited, delivered=delivered, on_idle=stop.set if once else lambda: None,
        )  # fmt: skip

    keep_serving(FUNCTIONS[STREAM_ALERTS], settings, mapping, stop, on_call)
    return delivered
