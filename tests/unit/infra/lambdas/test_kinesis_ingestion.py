"""A batch: landed, sent once, refused ones told of; and what is not done is named so that it comes again."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.events import Origin
from domain.log import NewRecord
from infra.lambdas.kinesis_ingestion import INLINE_BYTES, KinesisIngestion, KinesisRecord, records_of
from infra.lambdas.storefront_json import storefront_event_of, storefront_event_to_json
from projections.errors import StoreUnavailable
from projections.quarantine import decoded, state_of
from schema_registry.catalog import SchemaCatalog
from schema_registry.contracts import CLICKSTREAM_EVENTS, COMMANDS, QUARANTINE_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.unit.infra.lambdas.records import record, transaction

CODEC = RecordCodec(SchemaCatalog.numbered())
ORIGIN, AT = Origin("f", "m", "i", 0), datetime(2026, 11, 28, 10, tzinfo=UTC)


class World:
    """Everything that the function writes to, in memory; `refuses` are places of the next append that are not acknowledged."""

    def __init__(self) -> None:
        self.landed: list[str] = []
        self.log: list[NewRecord] = []
        self.letters: list[Mapping[str, Any]] = []
        self.payloads: dict[str, bytes] = {}
        self.refuses: set[int] = set()
        self.away: set[str] = set()

    def put(self, *args: Any) -> Any:
        if len(args) == 2:  # a payload
            self.payloads[args[0]] = args[1]
            return f"s3://b/{args[0]}"
        if "landing" in self.away:
            raise StoreUnavailable("Firehose is away")
        self.landed += [item.sequence_number for item in args[0]]
        return None

    def get(self, uri: str) -> bytes | None:
        return self.payloads.get(uri.removeprefix("s3://b/"))

    def send(self, letters: Sequence[Mapping[str, Any]]) -> None:
        if "letters" in self.away:
            raise StoreUnavailable("SQS is away")
        self.letters += letters

    def append(self, records: Sequence[NewRecord]) -> dict[int, str]:
        refused, self.refuses = self.refuses, set()
        self.log += [item for at, item in enumerate(records) if at not in refused]
        return dict.fromkeys(refused, "not acknowledged")

    def ingestion(self) -> KinesisIngestion:
        return KinesisIngestion(CODEC, self, self, self, self)

    @property
    def commands(self) -> list[str]:
        return [CODEC.decode(item.value)[1]["tx_id"] for item in self.log if item.topic == COMMANDS]


@pytest.fixture
def world() -> World:
    return World()


def test_good_records_are_landed_and_sent_in_order_with_their_key(world: World) -> None:
    report = world.ingestion().handle([record(n) for n in range(5)])
    assert world.commands == [f"bank:{n}:0" for n in range(5)]
    assert world.log[0].key == b"bank:a"
    assert world.landed == ["0", "1", "2", "3", "4"]
    assert (report.records, report.sent, report.duplicates, report.answer()) == (5, 5, 0, {"batchItemFailures": []})
    origin = CODEC.decode(world.log[0].value)[1]["origin"]
    assert (origin["source"], origin["mapping"], origin["ingest_id"]) == ("kinesis:s", "transaction_json@1", "s-2026-11-28")


def test_a_bad_record_is_in_quarantine_whole_and_told_of_and_the_others_go_on(world: World) -> None:
    bad = b"\xff not json \x1b[31m"
    report = world.ingestion().handle([record(0), record(1, bad), record(2)])
    assert world.commands == ["bank:0:0", "bank:2:0"]
    (event,) = [CODEC.decode(item.value)[1] for item in world.log if item.topic == QUARANTINE_EVENTS]
    assert (event["projection"], event["topic"], event["partition"], event["payload"]) == ("kinesis-ingestion", "kinesis:s", 3, bad)
    assert {header["name"]: header["value"] for header in event["headers"]}["kinesis_sequence_number"] == b"1"
    (letter,) = world.letters
    assert letter["reason"] == "not_json" and base64.b64decode(letter["payload_base64"]) == bad
    assert (report.sent, dict(report.refused or {}), report.not_done) == (2, {"not_json": 1}, None)


def test_a_large_bad_record_goes_to_the_store_and_is_named(world: World) -> None:
    huge = b"x" * (1 << 20)
    world.ingestion().handle([record(1, huge)])
    (event,) = [CODEC.decode(item.value)[1] for item in world.log]
    assert event["payload"] is None and world.get(event["payload_uri"]) == huge and event["payload_bytes"] == len(huge) > INLINE_BYTES
    assert world.letters[0]["payload_uri"] == event["payload_uri"]
    assert len(json.dumps(world.letters[0])) < 2_000


def test_the_same_bytes_twice_are_sent_once_within_a_batch_and_later(world: World) -> None:
    ingestion = world.ingestion()
    again = KinesisRecord("s", "shardId-000000000003", "9", "k", record(1).arrived_at, record(1).data)
    assert ingestion.handle([record(1), again]).duplicates == 1
    assert ingestion.handle([record(1), record(2)]).duplicates == 1
    assert world.commands == ["bank:1:0", "bank:2:0"]
    assert world.landed == ["1", "9", "2"]


def test_the_same_bad_bytes_count_each_time_and_may_be_good_the_next(world: World) -> None:
    ingestion = world.ingestion()
    report = ingestion.handle([record(n, b"{}") for n in range(5)])
    assert report.refused == {"unknown_version": 5} and len(world.letters) == 5
    assert ingestion.handle([record(0, b"{}")]).duplicates == 1, "but one place is told of once"
    early = transaction(9).replace(b"2026-11-28T11:00:00Z", b"2026-11-30T11:00:00Z")  # two days ahead of its arrival
    assert ingestion.handle([record(6, early)]).refused == {"invalid_occurred_at": 1}
    later = KinesisRecord("s", "shardId-000000000003", "7", "k", record(0).arrived_at + timedelta(days=2), early)
    assert ingestion.handle([later]).sent == 1


def test_an_error_that_nobody_thought_of_refuses_its_record_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.lambdas import kinesis_ingestion as module

    real = module.transaction_of

    def fails(value: dict[str, Any], *rest: Any) -> Any:
        if value == json.loads(transaction(1)):
            raise OverflowError("int too large")
        return real(value, *rest)

    monkeypatch.setattr(module, "transaction_of", fails)
    report = world.ingestion().handle([record(0), record(1), record(2)])
    assert report.refused == {"not_encodable": 1} and world.commands == ["bank:0:0", "bank:2:0"]


def test_what_kafka_does_not_take_comes_again_from_the_first_of_them(world: World) -> None:
    ingestion = world.ingestion()
    world.refuses = {2, 4}
    report = ingestion.handle([record(n) for n in range(6)])
    assert report.answer() == {"batchItemFailures": [{"itemIdentifier": "2"}]} and report.sent == 4
    report = ingestion.handle([record(n) for n in range(2, 6)])
    assert report.answer() == {"batchItemFailures": []} and (report.sent, report.duplicates) == (2, 2)
    assert sorted(world.commands) == [f"bank:{n}:0" for n in range(6)]
    assert world.landed == [str(n) for n in range(6)], "landed once"


def test_a_bad_record_that_kafka_did_not_take_is_not_told_of_yet(world: World) -> None:
    ingestion = world.ingestion()
    world.refuses = {0}
    assert ingestion.handle([record(0, b"bad")]).not_done == "0"
    assert world.letters == []
    ingestion.handle([record(0, b"bad")])
    assert len(world.letters) == 1


@pytest.mark.parametrize("part", ["landing", "letters"])
def test_when_a_part_is_away_the_batch_fails_and_its_second_try_loses_and_doubles_nothing(world: World, part: str) -> None:
    ingestion = world.ingestion()
    batch = [record(0), record(1, b"bad")]
    world.away = {part}
    with pytest.raises(StoreUnavailable):
        ingestion.handle(batch)
    world.away = set()
    report = ingestion.handle(batch)
    assert report.not_done is None and len(world.letters) == 1
    assert set(world.commands) == {"bank:0:0"}
    entries = state_of(
        (name, value, 0) for name, value, _ in decoded(CODEC, [_as_record(item) for item in world.log if item.topic == QUARANTINE_EVENTS])
    ).entries
    assert len(entries) == 1, "the same place is one entry"


def test_an_event_of_lambda_is_read(world: World) -> None:
    item = {
        "kinesis": {
            "kinesisSchemaVersion": "1.0", "partitionKey": "k", "sequenceNumber": "495", "data": base64.b64encode(b"{}").decode(),
            "approximateArrivalTimestamp": 1_545_084_650.987,
        },
        "eventSource": "aws:kinesis", "eventID": "shardId-000000000006:495", "eventSourceARN": "arn:aws:kinesis:us-east-1:1:stream/name",
    }  # fmt: skip
    (found,) = records_of({"Records": [item]})
    assert (found.stream, found.shard, found.sequence_number, found.data) == ("name", "shardId-000000000006", "495", b"{}")
    assert found.arrived_at == datetime(2018, 12, 17, 22, 10, 50, 987000, UTC)
    with pytest.raises(ValueError, match="expected records of aws:kinesis"):
        records_of({"Records": [{**item, "eventSource": "aws:sqs"}]})


def test_metrics_are_a_line_in_the_embedded_format(world: World) -> None:
    report = world.ingestion().handle([record(0), record(1, b"bad")])
    line = json.loads(report.line(0.0125, 1_700_000_000_000))
    (said,) = line["_aws"]["CloudWatchMetrics"]
    assert {metric["Name"] for metric in said["Metrics"]} <= line.keys()
    assert (line["Records"], line["Sent"], line["Refused"], line["HandlingMs"]) == (2, 1, 1, 12.5)


def test_a_thousand_records_are_one_append(world: World) -> None:
    report = world.ingestion().handle([record(n, transaction(n)) for n in range(1000)])
    assert report.sent == 1000


def _as_record(item: NewRecord) -> Any:
    from domain.log import Record

    return Record(item.topic, 0, 0, 0, item.key, item.value, item.headers)


def test_a_step_of_a_visit_is_an_event_at_once_and_a_wrong_one_is_refused(world: World) -> None:
    step = {
        "version": 1, "event": "product_viewed", "event_id": "e1", "session_id": "s1", "site": "shop", "customer_id": "customer:a",
        "amount": "19.90", "asset": "EUR", "occurred_at": "2026-11-28T09:30:00Z",
    }  # fmt: skip
    wrong = [step | {"event": "dreamt"}, step | {"asset": None}, step | {"basket": 1}, step | {"version": 2}]
    batch = [record(n, json.dumps(item).encode()) for n, item in enumerate([step, *wrong])]
    report = world.ingestion().handle(batch)
    assert report.sent == 1 and report.refused == {
        "invalid_event": 1, "invalid_asset": 1, "unknown_field": 1, "unknown_version": 1
    }  # fmt: skip
    (found,) = [item for item in world.log if item.topic == CLICKSTREAM_EVENTS]
    assert found.key == b"s1"
    name, value = CODEC.decode(found.value)
    assert (name, value["kind"], value["amount"], value["customer_id"]) == (
        "StorefrontEventRecorded", "product_viewed", Decimal("19.9"), "customer:a"
    )  # fmt: skip
    assert value["origin"]["mapping"] == "storefront_json@1"
    again = storefront_event_of(json.loads(storefront_event_to_json(storefront_event_of(step, ORIGIN, AT))), ORIGIN, AT)
    assert again == storefront_event_of(step, ORIGIN, AT)
