"""The event-source mapping of a DynamoDB stream as Lambda has it: shard by shard in order, a batch again until it is done.

Source: AWS Lambda Developer Guide, "Process DynamoDB records with Lambda".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from infra.lambdas.event_source import Checkpoints, Delivered, pause
from infra.lambdas.runtime import FunctionError
from projections.errors import StoreUnavailable

BATCH = 100
_BACKOFF_S, _BACKOFF_MOST_S = 0.2, 10.0
_EXPIRED, _TRIMMED = "ExpiredIteratorException", "TrimmedDataAccessException"
END = "END"

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Shard:
    shard_id: str
    position: str | None = None
    iterator: str | None = None
    is_open: bool = False
    is_finished: bool = False
    parent: str | None = None


class DynamoEventSource:
    """Reads all shards of one stream, one after the other, and calls one function. Used by one thread.

    Args:
        streams: client of DynamoDB Streams.
        stopped: asked before each call and while waiting; a batch that is under way is finished.
        on_idle: told of each round that found nothing.
    """

    def __init__(
        self,
        streams: Any,
        stream_arn: str,
        function: Callable[[dict[str, Any]], Any],
        checkpoints: Checkpoints,
        *,
        stopped: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
        delivered: Delivered | None = None,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._streams, self._arn, self._function, self._checkpoints = streams, stream_arn, function, checkpoints
        self._stopped, self._sleep = stopped, sleep
        self._on_idle = on_idle
        self._shards: dict[str, _Shard] = {}
        self.delivered = delivered if delivered is not None else Delivered()

    def poll(self) -> int:
        """One round over all shards; returns how many records were read.

        Raises:
            StoreUnavailable: the stream or the checkpoints do not answer.
        """
        try:
            for item in self._listed():
                self._shards.setdefault(item["ShardId"], _Shard(item["ShardId"], parent=item.get("ParentShardId")))
            done = sum(self._read(shard) for shard in list(self._shards.values()) if self._is_due(shard))
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"the stream {self._arn} cannot be read: {error}") from error
        if not done:
            self._on_idle()
        return done

    def waiting(self) -> int:
        """How many records lie behind the checkpoints; none is delivered.

        Raises:
            ClientError, BotoCoreError: the stream does not answer.
        """
        found = 0
        for item in self._listed():
            shard = _Shard(item["ShardId"], self._checkpoints.load(self._arn, item["ShardId"]))
            if shard.position == END:
                continue
            iterator: str | None = self._iterator(shard)
            while iterator is not None:
                answer = self._streams.get_records(ShardIterator=iterator, Limit=1_000)
                found += len(answer["Records"])
                iterator = answer.get("NextShardIterator") if answer["Records"] else None
        return found

    def _listed(self) -> Iterator[dict[str, Any]]:
        """Every shard of the stream; the answer holds a hundred."""
        request: dict[str, Any] = {"StreamArn": self._arn}
        while True:
            found = self._streams.describe_stream(**request)["StreamDescription"]
            yield from found["Shards"]
            if not found.get("LastEvaluatedShardId"):
                return
            request["ExclusiveStartShardId"] = found["LastEvaluatedShardId"]

    def _is_due(self, shard: _Shard) -> bool:
        """What is older is told first: a child waits for its parent."""
        parent = self._shards.get(shard.parent or "")
        return not shard.is_finished and (parent is None or parent.is_finished) and not self._stopped()

    def close(self) -> None:
        """Nothing: its clients are whoever's gave them."""

    def _read(self, shard: _Shard) -> int:
        if not shard.is_open:
            shard.position, shard.is_open = self._checkpoints.load(self._arn, shard.shard_id), True
            shard.is_finished = shard.position == END
            if shard.is_finished:
                return 0
        try:
            if shard.iterator is None:
                shard.iterator = self._iterator(shard)
            answer = self._streams.get_records(ShardIterator=shard.iterator, Limit=BATCH)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in (_EXPIRED, _TRIMMED):
                raise
            if code == _TRIMMED:  # away for more than a day: what lies between is gone, what is there comes
                _log.error("records_forgotten", shard=shard.shard_id, after=shard.position)
                shard.position = None
            shard.iterator = None
            return 0
        records = answer["Records"]
        if records and not self._deliver(shard, [_item(record, self._arn) for record in records]):
            shard.iterator = None  # stopped in the midst: it is read again from the checkpoint
            return len(records)
        shard.iterator = answer.get("NextShardIterator")
        if shard.iterator is None:
            self._save(shard, END)
            shard.is_finished = True
        return len(records)

    def _iterator(self, shard: _Shard) -> str:
        after = {"ShardIteratorType": "TRIM_HORIZON"}
        if shard.position is not None:
            after = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": shard.position}
        return str(self._streams.get_shard_iterator(StreamArn=self._arn, ShardId=shard.shard_id, **after)["ShardIterator"])

    def _deliver(self, shard: _Shard, items: list[dict[str, Any]]) -> bool:
        """Get a batch done, again and again; false when stopped before."""
        tries = 0
        while not self._stopped():
            self.delivered.batches += 1
            try:
                self._function({"Records": items})
            except FunctionError as error:
                tries += 1
                self.delivered.retries += 1
                _log.warning("batch_not_done", shard=shard.shard_id, records=len(items), tries=tries, problem=str(error)[:500])
                pause(min(_BACKOFF_MOST_S, _BACKOFF_S * 2 ** (tries - 1)), self._stopped, self._sleep)
                continue
            self.delivered.records += len(items)
            self._save(shard, items[-1]["dynamodb"]["SequenceNumber"])
            return True
        return False

    def _save(self, shard: _Shard, sequence_number: str) -> None:
        self._checkpoints.save(self._arn, shard.shard_id, sequence_number)
        shard.position = sequence_number


def _item(record: Mapping[str, Any], arn: str) -> dict[str, Any]:
    """A record as Lambda hands it on: plain JSON."""
    change = record["dynamodb"]
    at = change.get("ApproximateCreationDateTime")
    return {
        **{name: record[name] for name in ("eventID", "eventName", "eventVersion", "eventSource", "awsRegion") if name in record},
        "eventSourceARN": arn,
        "dynamodb": {**change, **({"ApproximateCreationDateTime": at.timestamp()} if at is not None else {})},
    }
