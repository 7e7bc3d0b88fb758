"""The Spark road on real parts: trained on the archive, scored exactly once whatever dies, told of, curated as the engine does it.

Each Spark job takes some ten seconds to start, so they are few, and the tests build on one another in their order.
"""

from __future__ import annotations

import io
import json
import struct
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread
from typing import Any

import fastavro
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.commands import LabelWallet
from domain.log import NewRecord
from infra.composition import Composition, NotReady
from infra.lambdas.stream_alerts_function import serve, untold
from infra.rebuild import rebuild
from infra.simulator.generator import SimulatorOptions, simulate
from infra.spark.environment import SparkEnvironment, spark_environment
from infra.spark.jobs.score_store import SCHEMA, ScoreStore
from infra.spark.models import promote, promoted, train
from infra.spark.run import SparkJobFailed, SparkRunner
from infra.spark.scores import beside, dsn_of, held, score_stream, wait
from projections.archive import SCHEMA as ARCHIVED
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS, contracts
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

pytestmark = pytest.mark.timeout(1_500)  # a job takes half a minute where it shares two cores

COUNT, SEED = 3_000, 11
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ODD = "card:odd:0"
COMPONENTS = tuple(f"v{i}" for i in range(1, 29))


@pytest.fixture(scope="module")
def installed() -> SparkEnvironment:
    """Installed at its first use: a minute or two, most of it download."""
    return spark_environment(lambda text: None)


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres", "aws"]) as found:
        found.simulate(COUNT, SEED)
        codec = RecordCodec(found.composition.clients.catalog)
        labels = [
            LabelWallet(wallet, label, "simulator", AT)
            for wallet, label in simulate(SimulatorOptions(count=COUNT, seed=SEED)).labels.items()
        ]
        found.composition.producer.send(COMMANDS, [x.wallet_id.encode() for x in labels], [codec.encode_event(x) for x in labels])
        found.composition.producer.flush()
        found.drive("command-handler")
        found.drive("archive")
        yield found


@pytest.fixture(scope="module")
def runner(log: OwnLog, installed: SparkEnvironment) -> SparkRunner:
    return SparkRunner(log.composition, installed)


def poison(log: OwnLog) -> dict[str, int]:
    """What no reader of ours may take: by reason, how many records of it were appended."""
    catalog = log.composition.clients.catalog
    good = next(value for batch in log.composition.log.read([TRANSACTION_EVENTS], {}) for value in batch.values if value)
    unknown = b"\x00" + struct.pack(">I", 999_999) + good[5:]
    other = b"\x00" + struct.pack(">I", catalog.latest_id("WalletLabelled")) + good[5:]
    values = [
        b'{"tx_id": "json"}', b"", unknown, good[:-20], good + b"more", good[:5] + b"\x02a",
        # A UUID where text is expected, and an ISO time where a long is: what the common recipe turns into null without a word.
        good[:5] + b"\x20" + bytes(range(16)) + good[60:], b"\x00",
    ]  # fmt: skip
    log.composition.producer.append([NewRecord(TRANSACTION_EVENTS, b"poison", value) for value in (*values, other)])
    codec = RecordCodec(catalog)
    record = codec.decode(good)[1]
    at = good.index(record["tx_id"].encode())
    no_text = good[:at] + b"\xff" + good[at + 1 :]
    values = [no_text, no_text + b"more", codec.encode("TransactionRecorded", {**record, "tx_id": ""})]
    values.append(codec.encode("TransactionRecorded", {**record, "tx_id": "card:\x00"}))
    # Read and scored: what is no number counts as nothing.
    values.append(codec.encode("TransactionRecorded", {**record, "tx_id": ODD, "card_features": dict.fromkeys(COMPONENTS, float("nan"))}))
    log.composition.producer.append([NewRecord(TRANSACTION_EVENTS, b"poison", value) for value in values])
    return {"not_framed": 3, "malformed": 6, "unknown_schema_id": 1, "invalid_tx_id": 2}


def rows(composition: Composition, table: str, columns: str) -> list[tuple[Any, ...]]:
    import psycopg

    with psycopg.connect(dsn_of(composition)) as connection:
        return connection.execute(f"SELECT {columns} FROM {SCHEMA}.{table} ORDER BY log_partition, log_offset").fetchall()  # type: ignore[arg-type]


def test_before_a_model_is_there_it_says_what_to_do(runner: SparkRunner) -> None:
    with pytest.raises(NotReady, match="tidemark spark train"):
        score_stream(runner, threshold=None, once=True, batch=1_000)
    with pytest.raises(NotReady, match="was saved here"):
        promote(runner.composition, "../lr")


def test_it_learns_from_the_archive_and_is_judged_on_what_came_later(runner: SparkRunner) -> None:
    stages: list[str] = []
    found = train(runner, 0.3, 0.01, stages.append)
    assert found.has_passed and found.champion is None and found.end_seq == COUNT and found.cut_seq == int(COUNT * 0.7)
    assert found.trained_on > found.judged_on > 100 and 0 < found.fraud < found.trained_on
    assert found.challenger.auroc is not None and found.challenger.average_precision is not None
    card = promoted(runner.composition)
    assert card is not None and card["model_version"] == found.model_version and 0.0 < card["threshold"] < 1.0
    assert stages[0] == "reading the archive"


def test_each_record_has_one_effect_and_what_cannot_be_read_is_kept_whole(log: OwnLog, runner: SparkRunner) -> None:
    expected = poison(log)
    threshold = 0.6
    for step in ("read", "kept", "put"):
        with pytest.raises(SparkJobFailed, match="no result"):
            score_stream(runner, threshold=threshold, once=True, batch=1_000, dies_at=step)
    found = score_stream(runner, threshold=threshold, once=True, batch=1_000)
    stands = held(runner.composition)
    assert stands.is_whole and stands.behind == 0, stands
    assert (stands.scored, stands.refused, stands.others) == (COUNT + 1, sum(expected.values()), 1)
    assert stands.alerts == stands.delivered == stands.items > 10
    refused = rows(runner.composition, "refused", "reason, value, message")
    assert Counter(reason for reason, *_ in refused) == expected
    assert {bytes(value) for _, value, _ in refused} >= {b'{"tx_id": "json"}', b"", b"\x00"}
    assert all(message for *_, message in refused)
    assert 0 < found["records"] < COUNT, "the killed ones had their part, and it was not done again"
    scores = rows(runner.composition, "score", "seq, score, model_version")
    assert sorted(seq for seq, *_ in scores if seq is not None) == list(range(COUNT))
    assert all(0.0 <= score <= 1.0 for _, score, _ in scores) and len({version for *_, version in scores}) == 1
    above = sum(score >= threshold for _, score, _ in scores)
    assert above == stands.alerts


def test_a_second_job_that_stands_elsewhere_is_refused(log: OwnLog) -> None:
    store = ScoreStore(dsn_of(log.composition))
    position = store.position(TRANSACTION_EVENTS)
    empty = pa.table({})
    with pytest.raises(Exception, match="another job has moved them"):
        store.keep(TRANSACTION_EVENTS, {0: 1}, {0: position[0] + 1}, empty, empty, [])
    assert store.position(TRANSACTION_EVENTS) == position
    store.close()


def test_every_alert_is_told_of_by_the_function(log: OwnLog) -> None:
    composition = log.composition
    sns, sqs = composition.clients.aws("sns"), composition.clients.aws("sqs")
    queue = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name=composition.settings.spark.alerts_topic)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    alerts = held(composition).alerts
    assert untold(composition) >= alerts
    done = serve(composition, Event(), once=True)
    assert done.records >= alerts and not done.retries  # AWS' double says of an item put again that it was changed
    assert serve(composition, Event(), once=True).records == 0, "a second start tells nothing twice"
    told: list[dict[str, Any]] = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        told += [json.loads(message["Body"]) for message in messages]
        for message in messages:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert len(told) == len({one["effect_id"] for one in told}) == alerts
    wanted = dict(rows(composition, "alert", "seq, score"))
    assert {one["seq"]: one["score"] for one in told} == wanted
    waited = wait(composition, 5.0)
    assert waited.is_reached and waited.told == waited.alerts == alerts


def test_a_store_that_was_emptied_gets_its_alerts_again(log: OwnLog, installed: SparkEnvironment) -> None:
    """And a job that goes on scores what comes, until it is told to stop."""
    composition = log.composition
    before = held(composition)
    composition.clients.aws("dynamodb").delete_table(TableName=composition.settings.spark.alerts_table)
    stop = Event()
    ended: list[dict[str, Any]] = []

    def run() -> None:
        ended.append(
            score_stream(SparkRunner(Composition(composition.settings), installed), threshold=0.6, once=False, batch=500, stop=stop)
        )

    job = Thread(target=run)
    job.start()
    log.simulate(200, SEED + 1)
    head = sum(log.ends([TRANSACTION_EVENTS]).values())
    deadline = time.monotonic() + 300
    while (sum(positions(composition).values()) < head or held(composition).items < before.alerts) and time.monotonic() < deadline:
        time.sleep(1.0)
    stop.set()
    job.join(120)
    assert ended and ended[0]["scored"] == 200, "a stop is no failure"
    stands = held(composition)
    assert stands.is_whole and stands.behind == 0 and stands.alerts == stands.items >= before.alerts
    assert beside(composition) is None, "no graph network is deployed here"


def positions(composition: Composition) -> dict[int, int]:
    store = ScoreStore(dsn_of(composition))
    try:
        return store.position(TRANSACTION_EVENTS)
    finally:
        store.close()


def test_the_curated_table_by_spark_is_the_engine_s(log: OwnLog, runner: SparkRunner) -> None:
    log.drive("curated")
    log.drive("archive")
    said: list[str] = []
    found = rebuild(Composition(log.composition.settings), log.stack, "curated", actor="test", by_spark=said.append)
    assert found.is_live and found.generation == 2 and found.proof is not None and found.proof.is_ok
    assert found.compared == "at one position it equals the live one"
    assert found.records == 0, "the archive had all of it, so the engine read nothing"
    fresh = log.fresh()
    assert fresh.verifier().projection(fresh.curated()).is_ok
    aside = {(key[2], key[3]) for key in fresh.log.quarantine() if key[0] == "curated"}
    unread = {(p, o) for p, o, reason in rows(fresh, "refused", "log_partition, log_offset, reason") if reason != "invalid_tx_id"}
    assert aside == unread and found.quarantined == len(aside), "what Spark cannot read the engine cannot"


def test_an_archive_of_two_schema_versions_is_read_as_the_later_one(log: OwnLog, runner: SparkRunner, tmp_path: Path) -> None:
    """The first version of a contract, and one that has gained a field, lost one and moved another."""
    first = contracts()["TransactionRecorded"].schemas[0]
    fields = [field for field in first["fields"] if field["name"] != "fee_asset"]
    second = {**first, "fields": [*fields[1:], {"name": "channel", "type": ["null", "string"], "default": None}, fields[0]]}
    value = {
        "network": "card", "kind": "payment", "status": "settled", "source_wallet_id": "card:a", "target_wallet_id": None,
        "amount": Decimal("12.340000000000000001"), "asset": "EUR", "counter_amount": None, "counter_asset": None, "fee": None,
        "fee_asset": "EUR",        "occurred_at": AT, "block": None, "payment": None, "card_features": None, "personal": None,
        "origin": {"source": "s", "mapping": "", "ingest_id": "i", "row": 0},
    }  # fmt: skip
    made = [(7, first, {**value, "tx_id": "card:1:0"}), (9, second, {**value, "tx_id": "card:2:0", "channel": "app"})]
    records = []
    for offset, (schema_id, schema, record) in enumerate(made):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
        framed = b"\x00" + struct.pack(">I", schema_id) + out.getvalue()
        records.append({"partition": 0, "offset": offset, "timestamp_ms": 1, "key": b"k", "headers": [], "value": framed})
    body = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records, schema=ARCHIVED), body)
    bucket = log.composition.settings.s3.bucket
    s3 = log.composition.clients.s3
    s3.put_object(Bucket=bucket, Key="two-versions/transaction-events/partition=0000/00.parquet", Body=body.getvalue())
    spec = runner.spec("TransactionRecorded")
    spec |= {
        "archive": f"s3a://{bucket}/two-versions", "latest": {"TransactionRecorded": json.dumps(second)},
        "schemas": [{"id": i, "contract": "TransactionRecorded", "schema": json.dumps(schema)} for i, schema in ((7, first), (9, second))],
        "position": {"0": 2}, "out": f"s3a://{bucket}/two-versions-read", "leaves": ["tx_id", "amount", "channel", "occurred_at", "kind"],
        "texts": ["tx_id"],
    }  # fmt: skip
    found = runner.run("curate", spec)
    assert (found["rows"], found["refused"]) == (2, [])
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix="two-versions-read/")["Contents"]]
    frames = [pl.read_parquet(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys if key.endswith(".parquet")]
    read = pl.concat(frames).sort("tx_id")
    assert read["tx_id"].to_list() == ["card:1:0", "card:2:0"] and read["channel"].to_list() == [None, "app"]
    assert read["amount"].to_list() == [value["amount"]] * 2 and read["kind"].to_list() == ["payment"] * 2
    assert read["occurred_at"].to_list() == [AT] * 2
