"""Alerts told from a DynamoDB stream: what a batch says, and how its mapping reads, goes on, and waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from infra.lambdas.dynamo_source import BATCH, DynamoEventSource
from infra.lambdas.runtime import FunctionError
from infra.lambdas.stream_alerts import StreamAlertsReport, messages
from infra.spark.jobs.alert_items import AlertItems
from projections.errors import StoreUnavailable


class Kept:
    """Checkpoints in memory."""

    def __init__(self) -> None:
        self.by_shard: dict[str, str] = {}

    def load(self, stream: str, shard: str) -> str | None:
        return self.by_shard.get(shard)

    def save(self, stream: str, shard: str, sequence_number: str) -> None:
        self.by_shard[shard] = sequence_number


@pytest.fixture(scope="module")
def double() -> Iterator[str]:
    """AWS' double as a server: within a process it takes a stream for a table."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


ADDRESS: list[str] = []


def client(service: str) -> Any:
    keys = {"region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
    return boto3.client(service, endpoint_url=ADDRESS[0], **keys)  # type: ignore[call-overload]


@pytest.fixture
def table(double: str) -> AlertItems:
    ADDRESS[:] = [double]
    httpx.post(f"{double}/moto-api/reset").raise_for_status()
    items = AlertItems(client("dynamodb"), "alerts")
    assert items.prepare() and not items.prepare()
    return items


def alert(offset: int, seq: int | None = 5) -> dict[str, Any]:
    return {
        "tx_id": f"card:{offset}:0", "log_partition": 2, "log_offset": offset, "seq": seq, "model_version": "lr-1", "score": 0.75,
        "threshold": 0.5,
    }  # fmt: skip


def source(function: Any, kept: Kept, **options: Any) -> DynamoEventSource:
    arn = client("dynamodb").describe_table(TableName="alerts")["Table"]["LatestStreamArn"]
    return DynamoEventSource(client("dynamodbstreams"), arn, function, kept, sleep=lambda seconds: None, **options)


def test_a_batch_reads_as_lambda_s_and_is_told_once(table: AlertItems) -> None:
    calls: list[dict[str, Any]] = []
    kept = Kept()
    table.put([alert(1), alert(2, seq=None)])
    table.put([alert(1)])  # AWS says nothing of an item that stays as it is, the double does: it is no alert again either way
    first = source(calls.append, kept)
    waiting = first.waiting()
    assert waiting in (2, 3) and (first.poll(), first.waiting()) == (waiting, 0)
    (event,) = calls
    json.dumps(event)  # plain values alone
    assert {record["eventSource"] for record in event["Records"]} == {"aws:dynamodb"}
    told = dict(messages(event["Records"]))
    assert {json.loads(text)["seq"] for text in told.values()} == {5, None}
    assert sorted(told) == [f"stream-alerts/0002/{offset:020d}" for offset in (1, 2)]
    table.put([alert(3)])
    assert source(calls.append, kept).poll() == 1, "another mapping goes on from the checkpoint"
    assert len(calls[1]["Records"]) == 1


def test_what_is_changed_or_deleted_by_hand_is_no_alert(table: AlertItems) -> None:
    calls: list[dict[str, Any]] = []
    table.put([alert(1)])
    key = {"tx_id": {"S": "card:1:0"}, "place": {"S": f"0002/{1:020d}"}}
    client("dynamodb").delete_item(TableName="alerts", Key=key)
    source(calls.append, Kept()).poll()
    assert [record["eventName"] for record in calls[0]["Records"]] == ["INSERT", "REMOVE"]
    assert len(messages(calls[0]["Records"])) == 1


def test_a_batch_that_fails_comes_again_until_it_is_done(table: AlertItems) -> None:
    table.put([alert(offset) for offset in range(BATCH + 5)])
    answers: Iterator[Exception | None] = iter([FunctionError("E", "away"), FunctionError("E", "away"), None, None])
    sizes: list[int] = []

    def function(event: dict[str, Any]) -> None:
        sizes.append(len(event["Records"]))
        if (error := next(answers)) is not None:
            raise error

    mapping = source(function, Kept())
    assert mapping.poll() + mapping.poll() == BATCH + 5
    assert sizes == [BATCH, BATCH, BATCH, 5]
    assert (mapping.delivered.records, mapping.delivered.retries) == (BATCH + 5, 2)


def test_a_mapping_that_is_stopped_in_the_midst_leaves_the_batch_for_the_next(table: AlertItems) -> None:
    table.put([alert(1)])
    kept, stopped = Kept(), False

    def fails(event: dict[str, Any]) -> None:
        nonlocal stopped
        stopped = True
        raise FunctionError("E", "away")

    source(fails, kept, stopped=lambda: stopped).poll()
    assert not kept.by_shard
    calls: list[dict[str, Any]] = []
    assert source(calls.append, kept).poll() == 1 and len(calls) == 1


def test_a_round_that_finds_nothing_says_so(table: AlertItems) -> None:
    idle: list[str] = []
    assert source(lambda event: None, Kept(), on_idle=lambda: idle.append("idle")).poll() == 0
    assert idle == ["idle"]


def test_a_stream_that_is_gone_is_an_outage(table: AlertItems) -> None:
    mapping = DynamoEventSource(client("dynamodbstreams"), "arn:aws:dynamodb:us-east-1:1:table/none/stream/x", lambda event: None, Kept())
    with pytest.raises(StoreUnavailable):
        mapping.poll()


def test_the_figures_are_metrics() -> None:
    line = json.loads(StreamAlertsReport(3, 2).line(0.5, 1))
    assert (line["Records"], line["Alerts"], line["HandlingMs"], line["Function"]) == (3, 2, 500.0, "stream-alerts")
