"""What the ingestion function needs of AWS: raw landing by Firehose, dead letters by SQS."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from infra.lambdas.batches import batches
from infra.lambdas.kinesis_ingestion import KinesisRecord
from projections.errors import StoreUnavailable

_FIREHOSE_RECORDS, _FIREHOSE_BYTES, _FIREHOSE_RECORD_BYTES = 500, 4 << 20, 1000 << 10  # of one PutRecordBatch, of one record
_SQS_MESSAGES, _SQS_BYTES = 10, 250_000  # of one SendMessageBatch
_TRIES, _PAUSE_S = 4, 0.1


class FirehoseLanding:
    """Records as JSON lines through a delivery stream, which writes them to S3. At least once: a second try lands twice."""

    def __init__(self, firehose: Any, delivery_stream: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._firehose, self._name, self._sleep = firehose, delivery_stream, sleep

    def put(self, records: Sequence[KinesisRecord]) -> None:
        """See `kinesis_ingestion.Landing`. A record beyond Firehose's limit is none that is accepted: quarantine has it whole."""
        lines = [line for line in map(_line, records) if len(line) <= _FIREHOSE_RECORD_BYTES]
        for part in batches(lines, _FIREHOSE_RECORDS, _FIREHOSE_BYTES, len):
            self._put(part)

    def _put(self, lines: list[bytes]) -> None:
        problem = ""
        for attempt in range(_TRIES):
            if attempt:
                self._sleep(_PAUSE_S * 2**attempt)
            try:
                answer = self._firehose.put_record_batch(DeliveryStreamName=self._name, Records=[{"Data": line} for line in lines])
            except (ClientError, BotoCoreError) as error:
                raise StoreUnavailable(f"Firehose {self._name} does not take the raw records: {error}") from error
            if not answer.get("FailedPutCount"):
                return
            refused = [(line, item) for line, item in zip(lines, answer["RequestResponses"], strict=True) if item.get("ErrorCode")]
            lines, problem = [line for line, _ in refused], str(refused[0][1].get("ErrorMessage"))
        raise StoreUnavailable(f"Firehose {self._name} refused {len(lines)} raw records {_TRIES} times: {problem}")


class SqsDeadLetters:
    """One message for each refused record."""

    def __init__(self, sqs: Any, queue_url: str) -> None:
        self._sqs, self._url = sqs, queue_url

    @classmethod
    def named(cls, sqs: Any, queue: str) -> Self:
        """Letters into the queue of this name.

        Raises:
            StoreUnavailable: there is none, or SQS does not answer.
        """
        try:
            return cls(sqs, sqs.get_queue_url(QueueName=queue)["QueueUrl"])
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"the queue {queue} cannot be found: {error}") from error

    def send(self, letters: Sequence[Mapping[str, Any]]) -> None:
        """See `kinesis_ingestion.DeadLetters`."""
        bodies = [json.dumps(letter) for letter in letters]
        for part in batches(bodies, _SQS_MESSAGES, _SQS_BYTES, len):
            entries = [{"Id": str(at), "MessageBody": body} for at, body in enumerate(part)]
            try:
                answer = self._sqs.send_message_batch(QueueUrl=self._url, Entries=entries)
            except (ClientError, BotoCoreError) as error:
                raise StoreUnavailable(f"SQS does not take dead letters: {error}") from error
            if answer.get("Failed"):
                raise StoreUnavailable(f"SQS refused {len(answer['Failed'])} dead letters: {answer['Failed'][0].get('Message')}")


def _line(record: KinesisRecord) -> bytes:
    said: dict[str, Any] = {
        "stream": record.stream, "shard": record.shard, "sequence_number": record.sequence_number,
        "partition_key": record.partition_key, "arrived_at": record.arrived_at.isoformat(),
    }  # fmt: skip
    try:
        said["data"] = record.data.decode()
    except UnicodeDecodeError:
        said["data_base64"] = base64.b64encode(record.data).decode()
    return json.dumps(said).encode() + b"\n"
