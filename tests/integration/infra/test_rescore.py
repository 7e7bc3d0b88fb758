"""Scoring history again on a real log: the scorer's own features, each transaction once, and nobody else notices."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.commands import VoidTransaction
from domain.errors import InvalidValue
from domain.log import NewRecord
from infra import rescore as module
from infra.composition import Composition, NotReady
from infra.rescore import plan, rescore, seq_at
from infra.settings import Settings
from projections import failpoints
from schema_registry.contracts import (
    CASE_EVENTS,
    COMMANDS,
    CONTROL_EVENTS,
    EMBEDDING_EVENTS,
    QUARANTINE_EVENTS,
    RESCORE_EVENTS,
    SCORE_EVENTS,
    TRANSACTION_EVENTS,
    WALLET_EVENTS,
)
from schema_registry.record_codec import RecordCodec
from tests.e2e.small_model import deploy_small_model, train_small_model
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

FIRST, FEW, REST, LATE = 400, 100, 200, 100
SCORED = FIRST + FEW + REST
VOIDED = (100, 250, 399)
STEP = 60  # transactions in one Kafka transaction here


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    """A scorer that was restarted after some of what it knew was taken back, so that its features changed on the way."""
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres", "aws"]) as found:
        found.live = deploy_small_model(found)  # type: ignore[attr-defined]
        found.other = train_small_model(found, seed=2)  # type: ignore[attr-defined]
        found.simulate(FIRST, seed=3)
        found.drive("scorer")
        tx_ids = {record["tx_seq"]: record["tx_id"] for record in scores(found, SCORE_EVENTS)}
        codec = RecordCodec(found.composition.clients.catalog)
        now = datetime.now(UTC)
        voids = [VoidTransaction(tx_ids[seq], None, "test", None, "test", now) for seq in VOIDED]
        found.composition.producer.append([NewRecord(COMMANDS, void.tx_id.encode(), codec.encode_event(void)) for void in voids])
        found.drive("command-handler")
        for count, seed in ((FEW, 4), (REST, 5)):
            found.simulate(count, seed=seed)
            found.drive("scorer")
        found.drive("alerts")
        found.drive("command-handler")
        yield found


@pytest.fixture(scope="module")
def other(log: OwnLog) -> str:
    return str(log.other)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def live(log: OwnLog) -> str:
    return str(log.live)  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", STEP)


def scores(log: OwnLog, topic: str, model: str | None = None) -> list[dict[str, Any]]:
    """The scores on a topic in order of seq, as the log has them."""
    codec = RecordCodec(log.composition.clients.catalog)
    found = []
    for batch in log.fresh().log.read([topic], {}):
        for seq, key, value in zip(batch.seqs().tolist(), batch.keys, batch.values, strict=True):
            record = codec.decode(value)[1]
            assert record["tx_seq"] == seq, "the header says it too"
            assert key == (record["source_wallet_id"] or record["target_wallet_id"] or record["tx_id"]).encode()
            if model in (None, record["model_version"]):
                found.append(record)
    return sorted(found, key=lambda record: record["tx_seq"])


def everything_else(log: OwnLog) -> Any:
    return log.fresh().log.ends([COMMANDS, CASE_EVENTS, SCORE_EVENTS, EMBEDDING_EVENTS, CONTROL_EVENTS, WALLET_EVENTS, QUARANTINE_EVENTS])


def rescore_and_die(settings: Settings, model: str) -> None:
    """A process of its own, ended while its third transaction is open."""
    module.BATCH = STEP
    failpoints.arm(failpoints.PRODUCED, 3)
    rescore(Composition(settings), model, 0)


def test_what_it_would_do_is_said_and_nothing_is_done(log: OwnLog, other: str) -> None:
    found = plan(log.fresh(), other, 30, 130)
    assert (found.from_seq, found.until_seq, found.scored, found.added, found.left) == (30, 130, 0, 0, 100)
    assert found.replayed == 30
    assert plan(log.fresh(), other, 0).until_seq == SCORED
    assert scores(log, RESCORE_EVENTS) == []


def test_killed_it_goes_on_and_each_transaction_has_one_score_from_the_scorers_own_features(log: OwnLog, other: str) -> None:
    before = everything_else(log)
    child = multiprocessing.get_context("spawn").Process(target=rescore_and_die, args=(log.stack.settings(), other))
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    # A poll hands over what has arrived, up to a step: only the two closed transactions' number is fixed, not their size.
    kept = len(scores(log, RESCORE_EVENTS, other))
    assert 0 < kept <= 2 * STEP
    result = rescore(log.fresh(), other, 0)
    assert (result.scored, result.added, result.left) == (kept, SCORED - kept, 0)
    found, known = scores(log, RESCORE_EVENTS, other), scores(log, SCORE_EVENTS)
    assert [record["tx_seq"] for record in found] == list(range(SCORED))
    for name in ("tx_id", "features", "source_k", "target_k", "feature_set"):
        assert [record[name] for record in found] == [record[name] for record in known], name
    assert log.composition.log.restated_from() == [FIRST + FEW], "so that features changed on the way"
    assert sum(a["score"] != b["score"] for a, b in zip(found, known, strict=True)) > SCORED / 2, "another model judges otherwise"
    again = rescore(log.fresh(), other, 0)
    assert (again.scored, again.added) == (SCORED, 0)
    assert len(scores(log, RESCORE_EVENTS, other)) == SCORED
    assert everything_else(log) == before, "nothing is written elsewhere"


def test_stopped_and_begun_anywhere_the_model_that_serves_repeats_its_own_scores_bit_by_bit(log: OwnLog, live: str) -> None:
    stopped = rescore(log.fresh(), live, FIRST - 5, FIRST + 140, stopped=lambda: True)
    assert stopped.is_stopped and stopped.left == 145 and stopped.added == 0
    calls = iter([False] * 9 + [True] * 100)
    stopped = rescore(log.fresh(), live, FIRST - 5, FIRST + 140, stopped=lambda: next(calls))
    assert stopped.is_stopped and 0 < stopped.added < 145 and stopped.left == 145 - stopped.added
    assert rescore(log.fresh(), live, FIRST + 50, FIRST + 60).added <= 10
    assert not rescore(log.fresh(), live, FIRST - 5, FIRST + 140).left
    assert not rescore(log.fresh(), live, FIRST + 100).left
    assert not rescore(log.fresh(), live, 0).left
    assert scores(log, RESCORE_EVENTS, live) == scores(log, SCORE_EVENTS)


def test_the_scorer_goes_on_where_it_was_and_no_alert_comes_of_history(log: OwnLog, live: str) -> None:
    alerts = len(log.fresh().log.cases())
    log.composition = log.fresh()
    log.drive("alerts")
    log.drive("command-handler")
    assert len(log.fresh().log.cases()) == alerts
    log.simulate(LATE, seed=6)
    log.drive("scorer")
    log.drive("alerts")
    log.drive("command-handler")
    assert Counter(record["tx_seq"] for record in scores(log, SCORE_EVENTS)) == Counter(range(SCORED + LATE))
    composition = log.fresh()
    assert composition.log.quarantine() == {}
    assert {case["model_version"] for case in composition.log.cases()} <= {live}
    assert all(case["tx_seq"] >= SCORED for case in composition.log.cases()[alerts:])


def test_beyond_the_scorer_nothing_is_scored_again(log: OwnLog, other: str) -> None:
    reached = log.fresh().log.next_seq(SCORE_EVENTS)
    log.simulate(LATE, seed=7)
    assert log.fresh().log.next_seq(TRANSACTION_EVENTS) == reached + LATE
    assert plan(log.fresh(), other, 0, reached + 5).until_seq == reached
    log.drive("scorer")
    assert plan(log.fresh(), other, 0, reached + 5).until_seq == reached + 5


def test_archive_and_warehouse_hold_them_and_equal_the_log(log: OwnLog, other: str, live: str) -> None:
    log.composition = log.fresh()
    for name in ("archive", "warehouse"):
        log.drive(name)
    verifier = log.fresh().verifier()
    archive = verifier.archive(log.composition.archive())
    assert archive.is_ok, archive.problems
    warehouse = verifier.projection(log.composition.warehouse())
    assert warehouse.is_ok, warehouse.problems
    assert archive.rows[RESCORE_EVENTS] == warehouse.rows["fact_rescore"] == 2 * SCORED
    assert verifier.log().is_ok


def test_a_time_is_found_as_the_seq_where_it_begins(log: OwnLog) -> None:
    composition = log.fresh()
    appended: dict[int, int] = {}
    for batch in composition.log.read([TRANSACTION_EVENTS], {}):
        appended.update(zip(batch.seqs().tolist(), batch.timestamps_ms.tolist(), strict=True))
    for seq in (0, FIRST, FIRST + FEW + 1, SCORED):
        assert seq_at(composition, appended[seq]) == min(other for other, at in appended.items() if at >= appended[seq])
    assert seq_at(composition, 0) == 0
    assert seq_at(composition, max(appended.values()) + 60_000) == len(appended)


def test_a_model_or_a_range_that_is_not_there_is_said(log: OwnLog, other: str, live: str) -> None:
    with pytest.raises(NotReady, match=rf"no model m-nothing was trained; trained are .*{other}"):
        rescore(log.fresh(), "m-nothing", 0)
    with pytest.raises(InvalidValue, match="expected a seq before 100, where the range ends at the latest, found 100"):
        rescore(log.fresh(), other, 100, 100)
