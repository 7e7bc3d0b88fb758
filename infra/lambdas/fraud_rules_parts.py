"""What the fraud-rules function needs: the shard's past, alerts by SNS, and the policy that the log holds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from botocore.exceptions import BotoCoreError, ClientError
from confluent_kafka import Consumer, KafkaException, TopicPartition

from domain.errors import LogError
from domain.policy import NO_POLICY, HeldPolicy, Policy, PolicyError
from infra.kafka.client import OPERATION_TIMEOUT_S, READ_OPTIONS
from infra.lambdas.fraud_rules import RuleAlert
from infra.lambdas.kinesis_ingestion import KinesisRecord
from infra.lambdas.sns_messages import publish, topic_arn
from projections.errors import StoreUnavailable
from schema_registry.contracts import CONTROL_EVENTS
from schema_registry.errors import UndecodableRecord
from schema_registry.record_codec import RecordCodec

_PAGE = 4_000  # records of a call
_TRIES = 10
_READS_PER_S = 4.0  # of the five that a shard answers in a second, to all readers together
_LOOK_S = 2.0


class KinesisPast:
    """Reads a shard again."""

    def __init__(self, kinesis: Any, sleep: Callable[[float], None] = time.sleep) -> None:
        self._kinesis, self._sleep = kinesis, sleep

    def between(self, stream: str, shard: str, start: datetime | str, before: str) -> Iterator[KinesisRecord]:
        """See `fraud_rules.Past`."""
        wanted: dict[str, Any] = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": start}
        if isinstance(start, datetime):
            wanted = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": start}
        try:
            iterator = self._kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, **wanted)["ShardIterator"]
            while iterator is not None:
                answer = self._records(iterator)
                for item in answer["Records"]:
                    if int(item["SequenceNumber"]) >= int(before):
                        return
                    yield KinesisRecord(
                        stream, shard, item["SequenceNumber"], item["PartitionKey"], item["ApproximateArrivalTimestamp"], item["Data"]
                    )
                if not answer["Records"] and not answer.get("MillisBehindLatest"):
                    return
                iterator = answer.get("NextShardIterator")
                self._sleep(1 / _READS_PER_S)
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"the past of {stream} cannot be read: {error}") from error

    def _records(self, iterator: str) -> dict[str, Any]:
        """One page; a shard that has answered too many readers already is asked again."""
        for _ in range(_TRIES):
            try:
                answer: dict[str, Any] = self._kinesis.get_records(ShardIterator=iterator, Limit=_PAGE)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ProvisionedThroughputExceededException":
                    raise
                self._sleep(1.0)
                continue
            return answer
        raise StoreUnavailable(f"the shard answers other readers: no room for this one in {_TRIES} s")


class SnsAlerts:
    """One message for each alert, on a topic."""

    def __init__(self, sns: Any, topic_arn: str) -> None:
        self._sns, self._arn = sns, topic_arn

    @classmethod
    def named(cls, sns: Any, topic: str) -> Self:
        """Alerts on the topic of this name; see `sns_messages.topic_arn`."""
        return cls(sns, topic_arn(sns, topic))

    def publish(self, alerts: Sequence[RuleAlert]) -> None:
        """See `fraud_rules.Alerts`."""
        publish(self._sns, self._arn, ((alert.effect_id, json.dumps(_message(alert), sort_keys=True)) for alert in alerts))


class LogPolicy:
    """The policy that the log holds, kept up by reading its control topic on. Call it for the policy as of now.

    Args:
        config: options of Kafka clients.
    """

    def __init__(self, config: Mapping[str, Any], codec: RecordCodec, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._codec, self._monotonic = codec, monotonic
        self._consumer = Consumer({**config, **READ_OPTIONS, "group.id": "tidemark-fraud-rules"})
        self._held, self._looked_at = NO_POLICY, monotonic()
        self._unreadable: PolicyError | None = None
        self._open()

    def __call__(self) -> HeldPolicy:
        """The policy that holds, and since when; a change is seen some seconds later.

        Raises:
            PolicyError: what the log has is none: a newer Tidemark wrote it. Raised until it has one that can be read.
            LogError: the control topic cannot be read.
        """
        if self._monotonic() - self._looked_at >= _LOOK_S:
            self._looked_at = self._monotonic()
            self._take(self._consumer.consume(_PAGE, 0.0))
        if self._unreadable is not None:
            raise self._unreadable
        return self._held

    def _open(self) -> None:
        try:
            found = self._consumer.list_topics(CONTROL_EVENTS, OPERATION_TIMEOUT_S).topics[CONTROL_EVENTS].partitions
            parts = [TopicPartition(CONTROL_EVENTS, partition) for partition in found]
            ends = {part.partition: self._consumer.get_watermark_offsets(part, OPERATION_TIMEOUT_S) for part in parts}
            gone = [partition for partition, (first, _) in ends.items() if first]
            if gone:
                raise LogError(f"{CONTROL_EVENTS}/{gone[0]} begins at {ends[gone[0]][0]}: a policy set before stands in the archive alone")
            self._consumer.assign([TopicPartition(CONTROL_EVENTS, partition, first) for partition, (first, _) in ends.items()])
            deadline = self._monotonic() + OPERATION_TIMEOUT_S
            while any(0 <= place.offset < ends[place.partition][1] for place in self._places(ends)):
                if self._monotonic() > deadline:
                    raise LogError(f"{CONTROL_EVENTS} was not read in {OPERATION_TIMEOUT_S:.0f} s")
                self._take(self._consumer.consume(_PAGE, 0.1))
        except KafkaException as error:
            raise LogError(f"the policy cannot be read: {error}") from error

    def _places(self, ends: Mapping[int, tuple[int, int]]) -> list[TopicPartition]:
        """Where the reader stands; before its first record that is the partition's first."""
        places = self._consumer.position([TopicPartition(CONTROL_EVENTS, partition) for partition in ends])
        for place in places:
            place.offset = place.offset if place.offset >= 0 else ends[place.partition][0]
        return places

    def _take(self, messages: Sequence[Any]) -> None:
        """Take all of them in, then tell of what went wrong: they do not come again."""
        problem = None
        for message in messages:
            if message.error() is not None:
                problem = message.error()
                continue
            try:
                name, record = self._codec.decode(message.value())
            except UndecodableRecord:  # foreign bytes, or of a newer Tidemark: no policy, as every reader of this topic sees it
                continue
            if name == "PolicyChanged":  # all under one key, so in one partition and in order
                try:
                    self._held, self._unreadable = HeldPolicy(Policy.from_json(str(record["policy"])), record["known_at"]), None
                except PolicyError as error:
                    self._unreadable = error
        if problem is not None:
            raise LogError(f"{CONTROL_EVENTS} cannot be read: {problem.str()}")


def _message(alert: RuleAlert) -> dict[str, Any]:
    return {
        "effect_id": alert.effect_id, "wallet_id": alert.wallet_id, "rules": list(alert.rules), "says": alert.says,
        "policy": alert.policy, "tx_id": alert.tx_id, "occurred_at": alert.occurred_at.isoformat(),
    }  # fmt: skip
