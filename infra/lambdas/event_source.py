"""A Kinesis event-source mapping: reads shards, calls a function with batches, and decides what comes after a failure, as Lambda does.

For each shard in its order: a batch is done when the function returns without naming a record; a named record and all after it come
again; a call that fails comes again in halves (`bisects`), so that a record that kills the function is found in the logarithm of its
batch. What is tried too often or has become too old (where limits are set) is told to the failure queue by its place and passed over;
nothing else is ever passed over.
A shard that was split or merged is read to its end before its children.

Source: AWS Lambda Developer Guide, "Configuring Kinesis event source mappings" and "How Lambda handles errors".
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from infra.lambdas.batches import batches
from infra.lambdas.runtime import FunctionError
from projections.errors import StoreUnavailable

END = "SHARD_END"
_BATCH_BYTES = 6 << 20  # of an event: Lambda's limit, base64 and all
_EXPIRED = ("ExpiredIteratorException",)
_LOOK_S = 5.0  # how often new shards are looked for
_BACKOFF_S, _BACKOFF_MOST_S = 0.2, 10.0
_SLICE_S = 0.1  # of a wait, between two looks at `stopped`

_log = structlog.get_logger(__name__)
Function = Callable[[dict[str, Any]], Any]
"""Calls a function with an event and returns its answer, or raises `FunctionError`."""


class Checkpoints(Protocol):
    """Keeps how far each shard was read. `stream` is its name and the second in which it was made."""

    def load(self, stream: str, shard: str) -> str | None:
        """The last sequence number that is done, `END` for a finished shard, none for a fresh one."""

    def save(self, stream: str, shard: str, sequence_number: str) -> None:
        """Keep it; returns once it is durable."""


class Failures(Protocol):
    """Is told of batches that were passed over."""

    def send(self, letters: Sequence[Mapping[str, Any]]) -> None: ...


@dataclass(frozen=True, slots=True)
class EventSourceOptions:
    """The mapping's settings under Lambda's names; `retries` and `max_age_s` of none go on until the stream itself forgets.

    That is the default, for our functions set bad records aside themselves: what fails a whole call is an outage, and giving up on
    that would lose records.
    """

    batch_size: int = 500
    retries: int | None = None
    max_age_s: float | None = None
    bisects: bool = True


DEFAULTS = EventSourceOptions()


@dataclass(slots=True)
class _Shard:
    shard_id: str
    parents: tuple[str, ...]
    iterator: str | None = None
    is_open: bool = False
    is_finished: bool = False
    position: str | None = None


@dataclass(slots=True)
class Delivered:
    """What a mapping has done since it was made."""

    batches: int = 0
    records: int = 0
    retries: int = 0
    given_up: int = 0
    by_condition: dict[str, int] = field(default_factory=dict)


class KinesisEventSource:
    """Reads all shards of one stream, one after the other, and calls one function. Used by one thread.

    Args:
        stopped: asked before each call and while waiting; a batch that is under way is finished.
        delivered: counted on, where a mapping takes the place of another.
    """

    def __init__(
        self,
        kinesis: Any,
        stream: str,
        function: Function,
        function_name: str,
        checkpoints: Checkpoints,
        failures: Failures,
        options: EventSourceOptions = DEFAULTS,
        *,
        stopped: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
        delivered: Delivered | None = None,
    ) -> None:
        self._kinesis, self._stream, self._function, self._function_name = kinesis, stream, function, function_name
        self._checkpoints, self._failures, self._options = checkpoints, failures, options
        self._stopped, self._sleep, self._now = stopped, sleep, now
        self._shards: dict[str, _Shard] = {}
        self._arn = self._stream_id = ""
        self._looked_at = -_LOOK_S
        self.delivered = delivered if delivered is not None else Delivered()

    def poll(self) -> int:
        """One round over all shards; returns how many records were read.

        Raises:
            StoreUnavailable: the stream, the checkpoints or the failure queue do not answer.
        """
        try:
            if time.monotonic() - self._looked_at >= _LOOK_S:
                self._look()
            return sum(self._read(shard) for shard in list(self._shards.values()) if self._is_due(shard))
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"the stream {self._stream} cannot be read: {error}") from error

    def close(self) -> None:
        """Nothing: its clients are whoever's gave them."""

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        if not self._arn:
            summary = self._kinesis.describe_stream_summary(StreamName=self._stream)["StreamDescriptionSummary"]
            self._arn = summary["StreamARN"]
            self._stream_id = stream_id(self._stream, summary)
        request: dict[str, Any] = {"StreamName": self._stream}
        while True:
            answer = self._kinesis.list_shards(**request)
            for item in answer["Shards"]:
                parents = tuple(item[name] for name in ("ParentShardId", "AdjacentParentShardId") if item.get(name))
                self._shards.setdefault(item["ShardId"], _Shard(item["ShardId"], parents))
            if not answer.get("NextToken"):
                return
            request = {"NextToken": answer["NextToken"]}

    def _is_due(self, shard: _Shard) -> bool:
        waits_for = [parent for parent in shard.parents if parent in self._shards and not self._shards[parent].is_finished]
        return not shard.is_finished and not waits_for and not self._stopped()

    def _read(self, shard: _Shard) -> int:
        if not shard.is_open:
            shard.position, shard.is_open = self._checkpoints.load(self._stream_id, shard.shard_id), True
            if shard.position == END:
                shard.is_finished = True
                return 0
        if shard.iterator is None:
            shard.iterator = self._iterator(shard)
        try:
            answer = self._kinesis.get_records(ShardIterator=shard.iterator, Limit=self._options.batch_size)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _EXPIRED:
                raise
            shard.iterator = None
            return 0
        items = [_item(record, self._arn, shard.shard_id, self._kinesis.meta.region_name) for record in answer["Records"]]
        is_whole = all(self._deliver(shard, part) for part in batches(items, len(items), _BATCH_BYTES, lambda item: len(json.dumps(item))))
        if not is_whole:  # stopped in the midst: what is left is read again from the checkpoint
            shard.iterator = None
            return len(items)
        shard.iterator = answer.get("NextShardIterator")
        if shard.iterator is None:
            self._save(shard, END)
            shard.is_finished = True
            self._looked_at = -_LOOK_S
        return len(items)

    def _iterator(self, shard: _Shard) -> str:
        after = {"ShardIteratorType": "TRIM_HORIZON"}
        if shard.position is not None:
            after = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": shard.position}
        return str(self._kinesis.get_shard_iterator(StreamName=self._stream, ShardId=shard.shard_id, **after)["ShardIterator"])

    def _deliver(self, shard: _Shard, items: list[dict[str, Any]], tries: int = 0) -> bool:
        """Get a batch done, in halves where it must be; false when stopped before."""
        while items:
            if self._stopped():
                return False
            condition = self._is_over(items, tries)
            if condition is not None:
                self._give_up(shard, items, condition, tries)
                return True
            self.delivered.batches += 1
            has_failed = False
            try:
                left = _left(items, self._function({"Records": items}))
                problem = "" if not left else f"from {left[0]['kinesis']['sequenceNumber']} on"
            except FunctionError as error:
                left, problem, has_failed = items, str(error), True
            done = items[: len(items) - len(left)]
            if done:
                self.delivered.records += len(done)
                self._save(shard, done[-1]["kinesis"]["sequenceNumber"])
            if not left:
                return True
            tries = tries + 1 if not done else 1
            self.delivered.retries += 1
            _log.warning("batch_not_done", shard=shard.shard_id, records=len(left), tries=tries, problem=problem[:500])
            if has_failed and self._options.bisects and len(left) > 1:
                # Halves begin anew with their tries, as on Lambda: only so is one bad record found within them.
                middle = len(left) // 2
                return self._deliver(shard, left[:middle]) and self._deliver(shard, left[middle:])
            items = left
            pause(min(_BACKOFF_MOST_S, _BACKOFF_S * 2 ** (tries - 1)), self._stopped, self._sleep)
        return True

    def _is_over(self, items: Sequence[Mapping[str, Any]], tries: int) -> str | None:
        options = self._options
        if options.retries is not None and tries > options.retries:
            return "RetryAttemptsExhausted"
        arrived = items[-1]["kinesis"]["approximateArrivalTimestamp"]
        if options.max_age_s is not None and self._now() - arrived > options.max_age_s:
            return "RecordAgeExceeded"
        return None

    def _give_up(self, shard: _Shard, items: Sequence[Mapping[str, Any]], condition: str, tries: int) -> None:
        first, last = items[0]["kinesis"], items[-1]["kinesis"]
        letter = {
            "requestContext": {"functionArn": self._function_name, "condition": condition, "approximateInvokeCount": tries},
            "version": "1.0", "timestamp": datetime.fromtimestamp(self._now(), UTC).isoformat(),
            "KinesisBatchInfo": {
                "shardId": shard.shard_id, "startSequenceNumber": first["sequenceNumber"], "endSequenceNumber": last["sequenceNumber"],
                "approximateArrivalOfFirstRecord": _text(first), "approximateArrivalOfLastRecord": _text(last),
                "batchSize": len(items), "streamArn": self._arn,
            },
        }  # fmt: skip
        # First told, then passed over: dying in between tells twice.
        self._failures.send([letter])
        self._save(shard, last["sequenceNumber"])
        self.delivered.given_up += len(items)
        self.delivered.by_condition[condition] = self.delivered.by_condition.get(condition, 0) + len(items)
        _log.error("batch_given_up", shard=shard.shard_id, records=len(items), condition=condition)

    def _save(self, shard: _Shard, sequence_number: str) -> None:
        self._checkpoints.save(self._stream_id, shard.shard_id, sequence_number)
        shard.position = sequence_number


def pause(seconds: float, stopped: Callable[[], bool], sleep: Callable[[float], None]) -> None:
    """Wait, in slices between which `stopped` is asked."""
    for _ in range(max(1, round(seconds / _SLICE_S))):
        if stopped():
            return
        sleep(_SLICE_S)


def stream_id(name: str, summary: Mapping[str, Any]) -> str:
    """What checkpoints call a stream: one that was deleted and made again has the old names of shards, and is another one."""
    return f"{name}@{summary['StreamCreationTimestamp'].timestamp():.0f}"


def _item(record: Mapping[str, Any], arn: str, shard: str, region: str) -> dict[str, Any]:
    arrived: datetime = record["ApproximateArrivalTimestamp"]
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0", "partitionKey": record["PartitionKey"], "sequenceNumber": record["SequenceNumber"],
            "data": base64.b64encode(record["Data"]).decode(), "approximateArrivalTimestamp": round(arrived.timestamp(), 3),
        },
        "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventID": f"{shard}:{record['SequenceNumber']}",
        "eventName": "aws:kinesis:record", "awsRegion": region, "eventSourceARN": arn,
    }  # fmt: skip


def _left(items: list[dict[str, Any]], answer: Any) -> list[dict[str, Any]]:
    """What is not done after an answer: from the lowest record it names on; all of it where it names one that was not sent.

    Raises:
        FunctionError: the answer is of another shape.
    """
    failures = (answer or {}).get("batchItemFailures") if isinstance(answer, dict | None) else answer
    if not failures:
        return []
    try:
        named = {failure["itemIdentifier"] for failure in failures}
    except (TypeError, KeyError):
        raise FunctionError("InvalidAnswer", f"expected batchItemFailures of itemIdentifier, found {str(answer)[:200]}") from None
    numbers = [item["kinesis"]["sequenceNumber"] for item in items]
    if not named <= set(numbers):
        return items
    return items[min(numbers.index(name) for name in named) :]


def _text(kinesis: Mapping[str, Any]) -> str:
    return datetime.fromtimestamp(kinesis["approximateArrivalTimestamp"], UTC).isoformat()
