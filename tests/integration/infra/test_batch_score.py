"""Batch scoring from the warehouse and from S3 on a real log: the live scorer's own scores, once, whatever interrupts it."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.commands import VoidTransaction
from domain.errors import InvalidValue
from domain.log import NewRecord
from infra import batch_score as module
from infra.batch_score import BatchResult, batch_score
from infra.batch_sources import SOURCES, SourceIncomplete
from infra.composition import Composition, NotReady
from infra.settings import Settings
from projections import failpoints
from projections.errors import StoreDisagrees
from schema_registry.contracts import COMMANDS, SCORE_EVENTS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.e2e.small_model import deploy_small_model
from tests.integration.infra.own_log import OwnLog, own_log
from tests.integration.infra.test_redshift import with_redshift
from tests.integration.projections.redshift_store import redshift_store
from tests.shared_servers import SharedServers
from tests.unit.projections.warehouse.databases import query

FIRST, FEW, REST = 300, 100, 150
RESTATED, COUNT = FIRST + FEW, FIRST + FEW + REST
PART = 120  # transactions in one object here
COMPARED = (
    "tx_id", "tx_seq", "score", "source_score", "target_score", "features_only_score", "source_features_only_score",
    "target_features_only_score", "source_k", "target_k", "source_wallet_id", "target_wallet_id", "feature_set", "model_version",
)  # fmt: skip


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    """Scored live, with features restated on the way; archive and warehouse hold everything."""
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres", "aws"]) as found:
        found.live = deploy_small_model(found)  # type: ignore[attr-defined]
        found.simulate(FIRST, seed=3)
        found.drive("scorer")
        codec = RecordCodec(found.composition.clients.catalog)
        tx_ids = {record["tx_seq"]: record["tx_id"] for record in live_scores(found)}
        voids = [VoidTransaction(tx_ids[seq], None, "test", None, "test", datetime.now(UTC)) for seq in (100, 250)]
        found.composition.producer.append([NewRecord(COMMANDS, void.tx_id.encode(), codec.encode_event(void)) for void in voids])
        found.drive("command-handler")
        for count, seed in ((FEW, 4), (REST, 5)):
            found.simulate(count, seed=seed)
            found.drive("scorer")
        found.composition = found.fresh()
        for name in ("archive", "warehouse"):
            found.drive(name)
        yield found


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 50)
    monkeypatch.setattr(module, "PART_ROWS", PART)


def live_scores(log: OwnLog) -> list[dict[str, Any]]:
    codec = RecordCodec(log.composition.clients.catalog)
    found = [codec.decode(value)[1] for batch in log.fresh().log.read([SCORE_EVENTS], {}) for value in batch.values]
    return sorted(found, key=lambda record: record["tx_seq"])


def dsn_of(log: OwnLog) -> str:
    dsn = log.stack.settings().warehouse.dsn
    assert dsn is not None
    return dsn.get_secret_value()


def rows_of(dsn: str, run_id: str) -> list[dict[str, Any]]:
    """A run's rows in the table, in order of seq."""
    names = ", ".join(COMPARED)
    rows = query(dsn, f"SELECT {names} FROM batch_scoring.batch_score WHERE run_id = '{run_id}' ORDER BY tx_seq")
    return [dict(zip(COMPARED, row, strict=True)) for row in rows]


def score_and_die(settings: Settings, until: int) -> None:
    """A process of its own, ended when its second part is up."""
    module.BATCH, module.PART_ROWS = 50, PART
    failpoints.arm(failpoints.UPLOADED, 2)
    batch_score(Composition(settings), "s3", until=until)


def deleted_and_back(log: OwnLog, tp: tuple[str, int]) -> tuple[Any, str, dict[str, Any]]:
    """The first archive object of a partition, with its body and metadata."""
    composition = log.fresh()
    key = composition.archive().objects([tp[0]])[tp][0].key
    return composition.clients.s3, key, composition.clients.s3.get_object(Bucket=composition.settings.s3.bucket, Key=key)


def test_both_sources_give_the_scores_that_the_live_scorer_gave(log: OwnLog) -> None:
    assert log.composition.log.restated_from() == [RESTATED], "so that features changed on the way"
    live = [{name: record[name] for name in COMPARED} for record in live_scores(log)]
    assert len(live) == COUNT
    runs: set[str] = set()
    for kind in SOURCES:
        result = batch_score(log.fresh(), kind)
        assert (result.from_seq, result.until_seq, result.scored, result.added, result.unreadable) == (0, COUNT, COUNT, COUNT, 0)
        assert result.model_version == log.live and result.is_loaded and result.is_new  # type: ignore[attr-defined]
        found = rows_of(dsn_of(log), result.run_id)
        for name in COMPARED:
            if name.endswith("score"):
                assert [row[name] for row in found] == pytest.approx([row[name] for row in live], abs=1e-6), name
            else:
                assert [row[name] for row in found] == [row[name] for row in live], name
        runs.add(result.run_id)
        again = batch_score(log.fresh(), kind)
        assert (again.run_id, again.scored, again.added, again.is_new) == (result.run_id, COUNT, 0, False)
    assert len(runs) == 2
    assert query(dsn_of(log), "SELECT count(*) FROM batch_scoring.batch_score") == [(2 * COUNT,)]


def test_the_manifest_says_what_was_scored_and_names_every_part(log: OwnLog) -> None:
    result = batch_score(log.fresh(), "warehouse", loads=False)
    composition = log.fresh()
    bucket, _, key = result.manifest_uri.removeprefix("s3://").partition("/")
    manifest = json.loads(composition.clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    assert (manifest["from_seq"], manifest["until_seq"], manifest["scored"], manifest["source"]) == (0, COUNT, COUNT, "warehouse")
    assert manifest["restated_from"] == [RESTATED]
    assert [part["first_seq"] for part in manifest["parts"]] == list(range(0, COUNT, PART))
    assert sum(part["rows"] for part in manifest["parts"]) == COUNT
    position = {place: offset for place, offset in log.ends([TRANSACTION_EVENTS]).items() if offset}
    assert all(manifest["position"][f"{topic}/{partition}"] >= offset for (topic, partition), offset in position.items())


def test_killed_it_goes_on_from_the_parts_that_are_there(log: OwnLog) -> None:
    until = COUNT - 1  # a run of its own
    child = multiprocessing.get_context("spawn").Process(target=score_and_die, args=(log.stack.settings(), until))
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    result = batch_score(log.fresh(), "s3", until=until)
    assert (result.scored, result.added) == (until, until - 2 * PART)
    assert [row["tx_seq"] for row in rows_of(dsn_of(log), result.run_id)] == list(range(until))


def test_stopped_it_keeps_whole_parts_and_goes_on(log: OwnLog) -> None:
    until = COUNT - 2
    answers = iter([False] * 3 + [True])
    stopped = batch_score(log.fresh(), "warehouse", until=until, stopped=lambda: next(answers))
    assert stopped.is_stopped and not stopped.is_loaded and stopped.added > PART
    result = batch_score(log.fresh(), "warehouse", until=until)
    assert (result.run_id, result.scored, result.added) == (stopped.run_id, until, until - PART)


def test_a_range_may_be_of_seqs_or_of_times_and_begins_with_the_features_of_all_before_it(log: OwnLog) -> None:
    live = {record["tx_seq"]: record["score"] for record in live_scores(log)}
    for kind in SOURCES:
        result = batch_score(log.fresh(), kind, since=RESTATED + 20, until=RESTATED + 50)
        found = rows_of(dsn_of(log), result.run_id)
        assert {row["tx_seq"]: row["score"] for row in found} == {seq: live[seq] for seq in range(RESTATED + 20, RESTATED + 50)}
    appended: dict[int, int] = {}
    for batch in log.fresh().log.read([TRANSACTION_EVENTS], {}):
        appended.update(zip(batch.seqs().tolist(), batch.timestamps_ms.tolist(), strict=True))
    at = datetime.fromtimestamp(appended[FIRST] / 1000, UTC)
    spans = {(one.from_seq, one.until_seq) for one in (batch_score(log.fresh(), kind, since=at, loads=False) for kind in SOURCES)}
    assert spans == {(min(seq for seq, when in appended.items() if when >= appended[FIRST]), COUNT)}


def test_a_hole_in_the_facts_is_named_and_what_lies_before_it_can_be_scored(log: OwnLog) -> None:
    dsn = dsn_of(log)
    query(dsn, "CREATE TABLE kept AS SELECT * FROM warehouse_g1.fact_transaction WHERE seq = 137")
    query(dsn, "DELETE FROM warehouse_g1.fact_transaction WHERE seq = 137")
    try:
        with pytest.raises(SourceIncomplete, match=r"no transaction with seq 137.*quarantine list.*--from s3"):
            batch_score(log.fresh(), "warehouse")
    finally:
        query(dsn, "INSERT INTO warehouse_g1.fact_transaction SELECT * FROM kept")
        query(dsn, "DROP TABLE kept")


def test_what_has_not_come_yet_is_waited_for_not_skipped(log: OwnLog) -> None:
    dsn = dsn_of(log)
    query(dsn, f"CREATE TABLE kept AS SELECT * FROM warehouse_g1.fact_transaction WHERE seq = {COUNT - 2}")
    query(dsn, f"DELETE FROM warehouse_g1.fact_transaction WHERE seq = {COUNT - 2}")
    try:
        result = batch_score(log.fresh(), "warehouse", since=COUNT - 10, loads=False)
        assert (result.until_seq, result.waiting) == (COUNT - 2, 1)
    finally:
        query(dsn, "INSERT INTO warehouse_g1.fact_transaction SELECT * FROM kept")
        query(dsn, "DROP TABLE kept")


def test_an_object_that_is_damaged_or_gone_is_named(log: OwnLog) -> None:
    place = (TRANSACTION_EVENTS, 0)
    s3, key, held = deleted_and_back(log, place)
    bucket, body = log.composition.settings.s3.bucket, held["Body"].read()
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body[:-200], Metadata=held["Metadata"])
        with pytest.raises(StoreDisagrees, match=rf"{key} cannot be read as Parquet.*Bring the object back"):
            batch_score(log.fresh(), "s3")
    finally:
        s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata=held["Metadata"])


def test_a_model_a_package_or_a_range_that_is_not_there_is_said(log: OwnLog) -> None:
    composition = log.fresh()
    with pytest.raises(NotReady, match="no model m-nothing was trained"):
        batch_score(composition, "warehouse", model_version="m-nothing")
    with pytest.raises(InvalidValue, match=f"expected a seq before {COUNT}"):
        batch_score(composition, "warehouse", since=COUNT)
    live: str = log.live  # type: ignore[attr-defined]
    bucket, key = composition.settings.s3.bucket, f"models/{live}/model.tar.gz"
    body = composition.clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    composition.clients.s3.delete_object(Bucket=bucket, Key=key)
    try:
        with pytest.raises(NotReady, match="is gone; run `tidemark train`"):
            batch_score(composition, "warehouse")
    finally:
        composition.clients.s3.put_object(Bucket=bucket, Key=key, Body=body)


def test_a_part_that_was_changed_is_not_loaded(log: OwnLog) -> None:
    composition = log.fresh()
    result: BatchResult = batch_score(composition, "s3", since=COUNT - 30, loads=False)
    key = f"batch-scores/run_id={result.run_id}/part-{COUNT - 30:020d}.parquet"
    held = composition.clients.s3.get_object(Bucket=composition.settings.s3.bucket, Key=key)
    composition.clients.s3.put_object(
        Bucket=composition.settings.s3.bucket, Key=key, Body=held["Body"].read() + b"0", Metadata=held["Metadata"]
    )
    with pytest.raises(StoreDisagrees, match=f"{key} is not the object that was put"):
        batch_score(log.fresh(), "s3", since=COUNT - 30)
    assert rows_of(dsn_of(log), result.run_id) == []


def test_on_redshift_facts_are_read_through_a_cursor_and_results_copied_from_the_same_parts(log: OwnLog) -> None:
    with redshift_store(dsn_of(log), log.stack.settings().s3) as store:
        on = OwnLog(log.stack, Composition(with_redshift(log.stack.settings(), store)))
        on.drive("warehouse")
        for is_new in (True, False):
            result = batch_score(Composition(with_redshift(log.stack.settings(), store)), "warehouse")
            assert (result.scored, result.is_new) == (COUNT, is_new)
        live = {record["tx_seq"]: record["score"] for record in live_scores(log)}
        assert {row["tx_seq"]: row["score"] for row in rows_of(store.behind, result.run_id)} == pytest.approx(live, abs=1e-6)
        on.composition.close()
