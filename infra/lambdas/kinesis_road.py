"""What the road from Kinesis needs besides the function: stream, landing, queues and checkpoints; and who writes into the stream."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from domain.errors import InvalidValue
from infra.clients import Clients
from infra.lambdas.batches import batches
from infra.lambdas.checkpoints import CHECKPOINTS
from infra.lambdas.fraud_rules import FRAUD_RULES
from infra.lambdas.kinesis_ingestion import INGESTION
from infra.settings import KinesisSettings
from infra.stack import Stack
from projections.errors import StoreUnavailable

RETENTION_H = 168  # a week: so long may an outage last before the stream forgets what nobody took
_PUT_RECORDS, _PUT_BYTES = 500, 5 << 20  # of one PutRecords
_TRIES = 8
_READY_S = 60.0
_SHOWN = 10  # messages that one look into a queue brings


@dataclass(frozen=True, slots=True)
class RoadState:
    """How the road stands: open shards, and messages waiting in both queues."""

    stream: str
    shards: int
    finished_shards: int
    dead_letters: int
    failures: int

    def as_json(self) -> dict[str, Any]:
        """The state as plain values."""
        return asdict(self)


def prepare_checkpoints(clients: Clients) -> None:
    """Make the table in which mappings keep how far they have read. Errors as `prepare`."""
    with _Named("the table of checkpoints cannot be made"):
        _checkpoints(clients)


def _checkpoints(clients: Clients) -> None:
    table = clients.aws("dynamodb")
    _make(
        lambda: table.create_table(
            TableName=CHECKPOINTS, KeySchema=[{"AttributeName": "shard", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "shard", "AttributeType": "S"}], BillingMode="PAY_PER_REQUEST",
        )
    )  # fmt: skip


def prepare(clients: Clients, shards: int = 2) -> None:
    """Make what is missing; what is there stays as it is. Safe to repeat, and needed again after AWS' double was restarted.

    Raises:
        StoreUnavailable: AWS does not answer, or refuses.
    """
    kinesis = clients.settings.kinesis
    with _Named("the road from Kinesis cannot be made"):
        _make(lambda: clients.aws("kinesis").create_stream(StreamName=kinesis.stream, ShardCount=shards))
        _active(clients, kinesis.stream)
        if (
            clients.aws("kinesis").describe_stream_summary(StreamName=kinesis.stream)["StreamDescriptionSummary"]["RetentionPeriodHours"]
            < RETENTION_H
        ):
            clients.aws("kinesis").increase_stream_retention_period(StreamName=kinesis.stream, RetentionPeriodHours=RETENTION_H)
        for queue in (kinesis.dead_letters, kinesis.failures):
            clients.aws("sqs").create_queue(QueueName=queue, Attributes={"MessageRetentionPeriod": str(14 * 86_400)})
        _checkpoints(clients)
        _alerts(clients, kinesis)
        _landing(clients, kinesis)


def start(stack: Stack, has_rules: bool = False) -> None:
    """Keep the ingestion function running beside the stack's workers, and the fraud-rules function where it is wanted."""
    for name in (INGESTION, FRAUD_RULES) if has_rules else (INGESTION,):
        stack.start_worker(name, [sys.executable, "-m", "infra.cli", "kinesis", "serve", name])


def stop(stack: Stack) -> list[str]:
    """Stop those functions that run; returns them."""
    running = [name for name in (INGESTION, FRAUD_RULES) if name in stack.state.desired().workers]
    for name in running:
        stack.stop_worker(name)
    return running


def state(clients: Clients) -> RoadState:
    """How the road stands.

    Raises:
        StoreUnavailable: AWS does not answer, or the road was not made yet.
    """
    kinesis = clients.settings.kinesis
    with _Named("the road from Kinesis cannot be looked at; `tidemark kinesis up` makes it"):
        shards = clients.aws("kinesis").list_shards(StreamName=kinesis.stream)["Shards"]
        ended = sum("EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in shards)
        waiting = [_waiting(clients.aws("sqs"), queue) for queue in (kinesis.dead_letters, kinesis.failures)]
    return RoadState(kinesis.stream, len(shards) - ended, ended, *waiting)


def scale(clients: Clients, shards: int) -> RoadState:
    """Split or merge shards evenly until so many are open; readers finish the old ones first.

    Raises:
        StoreUnavailable: AWS does not answer, or refuses: it takes at most twice and at least half of what is there.
    """
    name = clients.settings.kinesis.stream
    with _Named(f"{name} cannot be given {shards} shards"):
        clients.aws("kinesis").update_shard_count(StreamName=name, TargetShardCount=shards, ScalingType="UNIFORM_SCALING")
        _active(clients, name)
    return state(clients)


def letters(clients: Clients, queue: str, take: bool) -> list[dict[str, Any]]:
    """Up to ten messages of a queue; the ones that are taken are gone from it.

    Raises:
        StoreUnavailable: SQS does not answer.
    """
    with _Named(f"{queue} cannot be read"):
        sqs = clients.aws("sqs")
        url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        # Unless they are taken they are hidden from nobody.
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=_SHOWN, VisibilityTimeout=30 if take else 0)
        found = answer.get("Messages", [])
        if take and found:
            entries = [{"Id": str(at), "ReceiptHandle": item["ReceiptHandle"]} for at, item in enumerate(found)]
            sqs.delete_message_batch(QueueUrl=url, Entries=entries)
    return [json.loads(item["Body"]) for item in found]


class KinesisWriter:
    """Puts records into a stream. What a shard had no room for is tried again, so that order holds within one call at best."""

    def __init__(self, kinesis: Any, stream: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._kinesis, self._stream, self._sleep = kinesis, stream, sleep

    def put(self, items: Iterable[tuple[str, bytes]]) -> int:
        """Put (partition key, data) in order; returns how many, once all are in the stream.

        Raises:
            StoreUnavailable: the stream refuses, or has no room for long.
        """
        count = 0
        for part in batches(items, _PUT_RECORDS, _PUT_BYTES, _size):
            self._put([{"PartitionKey": key, "Data": data} for key, data in part])
            count += len(part)
        return count

    def _put(self, records: list[dict[str, Any]]) -> None:
        problem = ""
        for attempt in range(_TRIES):
            if attempt:
                self._sleep(0.1 * 2**attempt)
            with _Named(f"{self._stream} takes no records"):
                answer = self._kinesis.put_records(StreamName=self._stream, Records=records)
            if not answer["FailedRecordCount"]:
                return
            refused = [(record, item) for record, item in zip(records, answer["Records"], strict=True) if item.get("ErrorCode")]
            records, problem = [record for record, _ in refused], str(refused[0][1].get("ErrorMessage"))
        raise StoreUnavailable(f"{self._stream} refused {len(records)} records {_TRIES} times: {problem}")


class _Named:
    """Gives AWS' errors a sentence of ours."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ClientError | BotoCoreError):
            raise StoreUnavailable(f"{self._what}: {error}") from error


def _make(call: Callable[[], Any]) -> None:
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ResourceInUseException", "BucketAlreadyOwnedByYou"):
            raise


def _active(clients: Clients, stream: str) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        summary = clients.aws("kinesis").describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
        if summary["StreamStatus"] == "ACTIVE":
            return
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"{stream} is {summary['StreamStatus']} for {_READY_S:.0f} s")
        time.sleep(0.2)


def _alerts(clients: Clients, kinesis: KinesisSettings) -> None:
    """The topic for the rules' alerts and the queue that it fills; all three calls are idempotent."""
    if clients.settings.aws.is_itself:
        return  # infra/aws/rules.yaml makes both, and lets the one write into the other
    sns, sqs = clients.aws("sns"), clients.aws("sqs")
    topic = sns.create_topic(Name=kinesis.rule_alerts)["TopicArn"]
    url = sqs.create_queue(QueueName=kinesis.rule_alerts)["QueueUrl"]
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes={"RawMessageDelivery": "true"})


def _landing(clients: Clients, kinesis: KinesisSettings) -> None:
    firehose = clients.aws("firehose")
    if clients.settings.aws.is_itself:
        # Its role, its bucket's rules and where they stand are the account's own: infra/aws/ingestion.yaml makes them.
        firehose.describe_delivery_stream(DeliveryStreamName=kinesis.landing)
        return
    _make(lambda: clients.aws("s3").create_bucket(Bucket=kinesis.landing))
    destination = {
        "RoleARN": "arn:aws:iam::000000000000:role/tidemark-landing", "BucketARN": f"arn:aws:s3:::{kinesis.landing}",
        "Prefix": "raw/", "ErrorOutputPrefix": "failed/", "CompressionFormat": "GZIP",
        "BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 60},
    }  # fmt: skip
    _make(
        lambda: firehose.create_delivery_stream(
            DeliveryStreamName=kinesis.landing, DeliveryStreamType="DirectPut", ExtendedS3DestinationConfiguration=destination
        )
    )


def _waiting(sqs: Any, queue: str) -> int:
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(found["Attributes"]["ApproximateNumberOfMessages"])


def _size(item: tuple[str, bytes]) -> int:
    key, data = item
    if not 0 < len(key) <= 256:
        raise InvalidValue("partition_key", f"expected 1 to 256 characters, found {len(key)}")
    return len(key.encode()) + len(data)
