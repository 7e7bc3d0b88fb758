"""The shop's road as its user walks it: one command, then what the rules, the stores and the views have of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from infra.policy_files import current
from infra.stack.part import SERVERS
from tests.e2e.roads import walk_road
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
SESSIONS, FRAUDS = 120, 2


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, list(SERVERS)) as found:
        yield found


def walked(log: OwnLog) -> dict[str, Any]:
    return walk_road(log, "shop", "--sessions", str(SESSIONS), "--frauds", str(FRAUDS), "--seed", "11", "--rate", "300")


@pytest.fixture(scope="module")
def report(log: OwnLog) -> dict[str, Any]:
    return walked(log)


def test_the_stream_is_judged_and_each_planted_fraud_is_alerted_on(report: dict[str, Any]) -> None:
    assert report["policy"] == "shop@1"
    assert report["caught"] == report["planted"] == 4 * FRAUDS
    assert set(report["by_rule"]) >= {"velocity", "card_testing", "failed_payments", "new_device", "country_mismatch"}


def test_the_worker_behind_the_log_says_the_same_of_it(log: OwnLog, report: dict[str, Any]) -> None:
    assert current(log.fresh()).title == "shop@1"
    # One alert a wallet while it is open: the stream tells of each time, the case takes the later ones in.
    assert report["planted"] <= report["log_alerts"] <= report["alerts"]
    rows = query(log, "SELECT rules, policy FROM warehouse.fact_alert_rule")
    assert {policy for _, policy in rows} == {"shop@1"}
    assert {rule for rules, _ in rows for rule in rules.split(",")} == set(report["by_rule"])


def test_steps_and_payments_are_in_every_store_and_in_the_views(log: OwnLog, report: dict[str, Any]) -> None:
    fresh = log.fresh()
    proofs = [fresh.verifier().log(), fresh.verifier().archive(fresh.archive()), log.verify(fresh.warehouse())]
    assert all(proof.is_ok for proof in proofs), proofs
    assert query(log, "SELECT count(DISTINCT event_id) FROM warehouse.fact_storefront_event") == [(report["steps"],)]
    funnel = list(report["funnel"].values())
    assert funnel[0] == SESSIONS + FRAUDS * 5 and funnel[0] > funnel[1] > 0 and funnel[3] >= funnel[5] > 0
    ((payments, settled, most),) = query(log, "SELECT sum(payments), sum(settled_payments), max(failure_ratio) FROM warehouse.v_sales")
    assert payments == report["payments"] > settled > 0 and 0 < most <= 1
    ((largest,),) = query(log, "SELECT max(amount) FROM warehouse.v_high_value")
    assert largest == query(log, "SELECT max(amount) FROM warehouse.fact_transaction")[0][0]


def test_walked_again_with_the_same_seed_it_adds_and_alerts_on_nothing(log: OwnLog, report: dict[str, Any]) -> None:
    again = walked(log)
    assert (again["put"], again["alerts"], again["log_alerts"]) == (report["put"], 0, report["log_alerts"])
    assert query(log, "SELECT count(*) FROM warehouse.fact_transaction") == [(report["payments"],)]


def query(log: OwnLog, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(log.fresh().warehouse_dsn) as connection:
        return connection.execute(statement).fetchall()
