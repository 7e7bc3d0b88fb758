"""Scores and alerts of the warehouse replayed by themselves: a hand's damage there is gone, and nothing else was touched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import psycopg
import pytest

from domain.events import AlertRaised, AlertReason
from domain.log import NewRecord
from infra import rebuild_part as module
from infra.rebuild_part import PARTS, plan_part, rebuild_part
from projections.warehouse.sink import schema_of
from schema_registry.contracts import CASE_EVENTS, RESCORE_EVENTS, SCORE_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers
from tests.unit.projections.warehouse.events import START, rescored, scored

SCORES, ALERTS = 40, 5


def alert(number: int) -> AlertRaised:
    reason = next(iter(AlertReason))
    return AlertRaised(f"c{number}", "bank:a", reason, 0.9, 0.5, f"tx{number}", number, "because", "m1", START)


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres"]) as found:
        found.simulate(100, seed=3)
        codec = RecordCodec(found.composition.clients.catalog)
        records = [NewRecord(SCORE_EVENTS, b"k", codec.encode(*scored(i))) for i in range(SCORES)]
        records += [NewRecord(RESCORE_EVENTS, b"k", codec.encode(*rescored(i))) for i in range(SCORES)]
        records += [NewRecord(CASE_EVENTS, b"c", codec.encode_event(alert(i))) for i in range(ALERTS)]
        found.composition.producer.append(records)
        found.drive("warehouse")
        yield found


def is_green(log: OwnLog) -> bool:
    composition = log.fresh()
    return composition.verifier().projection(composition.warehouse()).is_ok


def damage(log: OwnLog, *statements: str) -> None:
    with psycopg.connect(log.fresh().warehouse_dsn) as connection:
        for statement in statements:
            assert connection.execute(statement.format(s=schema_of(1))).rowcount, f"the damage found nothing to damage: {statement}"


def test_damaged_scores_are_replayed_and_the_checkpoint_stays(log: OwnLog) -> None:
    before = log.fresh().warehouse().load_position()
    damage(
        log,
        "UPDATE {s}.fact_score SET score = 0.123 WHERE log_offset % 7 = 0",
        "DELETE FROM {s}.fact_rescore WHERE log_offset % 5 = 0",
    )
    assert not is_green(log)
    done = rebuild_part(log.fresh(), log.stack, "scores")
    assert (done.repaired.records, done.was_resumed) == (2 * SCORES, False)
    assert is_green(log)
    assert log.fresh().warehouse().load_position() == before


def test_what_belongs_to_others_is_not_mended_with_the_scores(log: OwnLog) -> None:
    damage(log, "UPDATE {s}.fact_alert SET reason = 'a hand'")
    rebuild_part(log.fresh(), log.stack, "scores")
    assert not is_green(log)
    done = rebuild_part(log.fresh(), log.stack, "alerts")
    assert done.repaired.records == ALERTS
    assert is_green(log)


class Killed(BaseException):
    """Stands for the end of the process between two slices."""


def test_a_run_that_died_between_slices_goes_on_and_an_old_one_is_begun_anew(log: OwnLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(done: int, total: int) -> None:
        if done:
            raise Killed

    with pytest.raises(Killed):
        rebuild_part(log.fresh(), log.stack, "scores", die)
    left = plan_part(log.fresh(), log.stack, "scores").records
    assert 0 < left < 2 * SCORES
    damage(log, "DELETE FROM {s}.fact_score", "DELETE FROM {s}.fact_rescore")
    done = rebuild_part(log.fresh(), log.stack, "scores")
    assert (done.was_resumed, done.repaired.records) == (True, left)
    assert not is_green(log), "what was damaged behind its back is not found by a run that goes on"

    with pytest.raises(Killed):
        rebuild_part(log.fresh(), log.stack, "scores", die)
    note = log.stack.state.folder / "rebuild" / "scores.json"
    then = time.time() - module.RESUMES_WITHIN.total_seconds() - 60
    os.utime(note, (then, then))
    done = rebuild_part(log.fresh(), log.stack, "scores")
    assert (done.was_resumed, done.repaired.records) == (False, 2 * SCORES)
    assert is_green(log)


def test_a_dry_run_says_what_would_be_read_and_written_and_changes_nothing(log: OwnLog) -> None:
    damage(log, "DELETE FROM {s}.fact_score WHERE log_offset % 2 = 0")
    plan = plan_part(log.fresh(), log.stack, "scores")
    assert plan.records == 2 * SCORES
    assert set(plan.rows) <= set(PARTS["scores"].tables)
    assert not is_green(log)
    rebuild_part(log.fresh(), log.stack, "scores")
    assert is_green(log)
