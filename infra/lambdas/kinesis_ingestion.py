"""From a Kinesis batch to commands: each record is landed raw, checked, and sent once; what is refused goes to quarantine and to a queue.

The contract with Lambda (`ReportBatchItemFailures`): the answer names the first record that is not done, and Lambda sends it and all
later ones again. Everything here may therefore happen twice and is harmless then: a transaction is recorded once by its tx_id, a
refused record has one entry in quarantine by its place, and dead letters carry that place.

Source: AWS Lambda Developer Guide, "Using Lambda to process records from Amazon Kinesis Data Streams".
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from domain.events import Origin
from domain.log import NewRecord, Record
from infra.lambdas import storefront_json, transaction_json
from infra.lambdas.json_fields import Refused, object_of
from infra.lambdas.metrics import metrics_line
from infra.lambdas.storefront_json import KIND, storefront_event_of
from infra.lambdas.transaction_json import transaction_of
from projections.quarantine import PayloadStore, QuarantineEntry, StoredPayload, as_record
from schema_registry.contracts import CLICKSTREAM_EVENTS, COMMANDS
from schema_registry.errors import SchemaError
from schema_registry.record_codec import RecordCodec

INGESTION = "kinesis-ingestion"
"""Who put these records into quarantine."""
INLINE_BYTES = 128 << 10  # of a payload within a dead letter: in base64, with what is said of it, below SQS' 256 KiB
_REMEMBERED = 50_000  # records that a warm function knows to be done: some MB


@dataclass(frozen=True, slots=True)
class KinesisRecord:
    """One record as Lambda hands it over."""

    stream: str
    shard: str
    sequence_number: str
    partition_key: str
    arrived_at: datetime
    data: bytes

    @property
    def place(self) -> int:
        """63 bits of the sequence number, which itself has some 186: what stands where a log has an offset or a file a row."""
        return int.from_bytes(hashlib.sha256(self.sequence_number.encode()).digest()[:8], "big") >> 1


class Landing(Protocol):
    """Keeps what arrived as it arrived."""

    def put(self, records: Sequence[KinesisRecord]) -> None:
        """Keep them; returns once they are durable.

        Raises:
            StoreUnavailable: they are not.
        """


class DeadLetters(Protocol):
    """Tells people and programs of what was refused."""

    def send(self, letters: Sequence[Mapping[str, Any]]) -> None:
        """Send each as a message of its own.

        Raises:
            StoreUnavailable: one was not taken.
        """


class Appender(Protocol):
    """Appends to the log; see `infra.kafka.producer.TrackedProducer`."""

    def append(self, records: Sequence[NewRecord]) -> dict[int, str]: ...


@dataclass(slots=True)
class IngestionReport:
    """What became of a batch. `not_done` is the sequence number to go on from, none when all is done."""

    records: int = 0
    sent: int = 0
    duplicates: int = 0
    refused: Counter[str] | None = None
    lag_ms: float = 0.0
    not_done: str | None = None
    problem: str | None = None

    def line(self, seconds: float, now_ms: int) -> str:
        """The figures for CloudWatch."""
        figures = {
            "Records": (self.records, "Count"), "Sent": (self.sent, "Count"), "Duplicates": (self.duplicates, "Count"),
            "Refused": (self.refused.total() if self.refused else 0, "Count"), "NotDone": (int(self.not_done is not None), "Count"),
            "LagMs": (round(self.lag_ms, 1), "Milliseconds"), "HandlingMs": (round(seconds * 1000, 1), "Milliseconds"),
        }  # fmt: skip
        return metrics_line({"Function": INGESTION}, figures, now_ms)

    def answer(self) -> dict[str, Any]:
        """What the function returns to Lambda."""
        return {"batchItemFailures": [{"itemIdentifier": self.not_done}] if self.not_done is not None else []}


class KinesisIngestion:
    """Handles batches of one stream. Not for several threads.

    Args:
        payloads: where refused records go whole that a dead letter cannot hold.
    """

    def __init__(self, codec: RecordCodec, log: Appender, landing: Landing, dead_letters: DeadLetters, payloads: PayloadStore) -> None:
        self._codec, self._log, self._landing, self._dead_letters, self._payloads = codec, log, landing, dead_letters, payloads
        self._landed: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._done: OrderedDict[bytes | tuple[str, str], None] = OrderedDict()

    def handle(self, records: Sequence[KinesisRecord]) -> IngestionReport:
        """Land, check and send one batch, in its order.

        Raises:
            StoreUnavailable: landing, dead letters or payloads are not taken: the whole batch comes again.
        """
        report = IngestionReport(records=len(records), refused=Counter())
        fresh = [record for record in records if (record.shard, record.sequence_number) not in self._landed]
        if fresh:
            self._landing.put(fresh)
            self._remember(self._landed, [(record.shard, record.sequence_number) for record in fresh])
        appends: list[NewRecord] = []
        of: list[tuple[KinesisRecord, bytes | tuple[str, str], Refused | None]] = []
        seen: set[bytes | tuple[str, str]] = set()
        for record in records:
            place = (record.shard, record.sequence_number)
            # The same bytes twice are a producer's or Lambda's second try. That holds of transactions; a refused record counts each time
            # that it comes at another place, and may be none that is refused the next time.
            digest = hashlib.blake2b(record.data, digest_size=16).digest()
            if digest in self._done or digest in seen or place in self._done:
                report.duplicates += 1
                continue
            try:
                command, refused = self._command(record), None
            except Refused as error:
                command, refused = self._quarantined(record, error), error
            name = digest if refused is None else place
            seen.add(name)
            appends.append(command)
            of.append((record, name, refused))
        failed = self._log.append(appends)
        done = [place for place in range(len(appends)) if place not in failed]
        letters = [self._letter(record, refused) for record, _, refused in (of[place] for place in done) if refused is not None]
        if letters:
            self._dead_letters.send(letters)
        self._remember(self._done, [of[place][1] for place in done])
        report.refused = Counter(refused.reason for _, _, refused in (of[place] for place in done) if refused is not None)
        report.sent = len(done) - report.refused.total()
        if failed:
            first = min(failed)
            report.not_done, report.problem = of[first][0].sequence_number, failed[first]
        if records:
            report.lag_ms = max(0.0, (time.time() - records[0].arrived_at.timestamp()) * 1000)
        return report

    def _command(self, record: KinesisRecord) -> NewRecord:
        """What goes to the log: a transaction as a command, to be decided; a step of a visit, which decides nothing, as its event."""
        try:
            value = object_of(record.data)
            if KIND in value:
                step = storefront_event_of(value, self._origin(record, storefront_json.MAPPING), record.arrived_at)
                return NewRecord(CLICKSTREAM_EVENTS, step.session_id.encode(), self._codec.encode_event(step))
            transaction = transaction_of(value, self._origin(record, transaction_json.MAPPING), record.arrived_at)
            return NewRecord(COMMANDS, (transaction.source_wallet_id or transaction.tx_id).encode(), self._codec.encode_event(transaction))
        except Refused:
            raise
        except (SchemaError, ValueError, ArithmeticError, TypeError) as error:
            # Whatever is overlooked above: one record must not fail the call, which would come again without end.
            raise Refused("not_encodable", "record", f"{type(error).__name__}: {error}"[:300]) from None

    @staticmethod
    def _origin(record: KinesisRecord, mapping: str) -> Origin:
        return Origin(f"kinesis:{record.stream}", mapping, f"{record.stream}-{record.arrived_at:%Y-%m-%d}", record.place)

    def _quarantined(self, record: KinesisRecord, refused: Refused) -> NewRecord:
        stored = self._stored(record)
        headers = (("kinesis_shard", record.shard.encode()), ("kinesis_sequence_number", record.sequence_number.encode()))
        source = Record(
            f"kinesis:{record.stream}", _number_of(record.shard), record.place, round(record.arrived_at.timestamp() * 1000),
            record.partition_key.encode(), None if stored else record.data, headers,
        )  # fmt: skip
        return as_record(self._codec, QuarantineEntry(INGESTION, source, refused.reason, str(refused), 1, stored))

    def _stored(self, record: KinesisRecord) -> StoredPayload | None:
        if len(record.data) <= INLINE_BYTES:
            return None
        digest = hashlib.sha256(record.data).hexdigest()
        name = f"{INGESTION}/{record.stream}/{_number_of(record.shard)}/{record.place}/{digest}"
        return StoredPayload(self._payloads.put(name, record.data), digest, len(record.data))

    def _letter(self, record: KinesisRecord, refused: Refused) -> dict[str, Any]:
        stored = self._stored(record)
        payload = {"payload_uri": stored.uri} if stored else {"payload_base64": base64.b64encode(record.data).decode()}
        return {
            "reason": refused.reason, "message": str(refused)[:1000], "stream": record.stream, "shard": record.shard,
            "sequence_number": record.sequence_number, "partition_key": record.partition_key,
            "arrived_at": record.arrived_at.isoformat(), **payload,
        }  # fmt: skip

    @staticmethod
    def _remember(known: OrderedDict[Any, None], names: Sequence[Any]) -> None:
        known.update(dict.fromkeys(names))
        while len(known) > _REMEMBERED:
            known.popitem(last=False)


def records_of(event: Mapping[str, Any]) -> list[KinesisRecord]:
    """The records of a Lambda event from Kinesis.

    Raises:
        ValueError: the event is of another source, or malformed.
    """
    found = []
    for item in event.get("Records", ()):
        if item.get("eventSource") != "aws:kinesis":
            raise ValueError(f"expected records of aws:kinesis, found {item.get('eventSource')!r}")
        kinesis = item["kinesis"]
        found.append(
            KinesisRecord(
                item["eventSourceARN"].rpartition("/")[2], item["eventID"].partition(":")[0], kinesis["sequenceNumber"],
                kinesis["partitionKey"], datetime.fromtimestamp(kinesis["approximateArrivalTimestamp"], UTC),
                base64.b64decode(kinesis["data"], validate=True),
            )
        )  # fmt: skip
    return found


def _number_of(shard: str) -> int:
    """The number in `shardId-000000000003`."""
    return int(shard.rpartition("-")[2])
