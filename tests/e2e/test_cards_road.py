"""The cards road as its user walks it: one command on servers that are up, its figures, and both stores of alerts alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from infra.lambdas.cards_function import NEEDS
from tests.e2e.roads import walk_road
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers
from tests.unit.projections.warehouse.databases import query

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
COUNT, FRAUDS = 2_000, 60


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, NEEDS) as found:
        yield found


def walk(log: OwnLog) -> dict[str, Any]:
    return walk_road(log, "cards", "--count", str(COUNT), "--frauds", str(FRAUDS))


@pytest.fixture(scope="module")
def first(log: OwnLog) -> dict[str, Any]:
    return walk(log)


def test_later_payments_are_scored_by_what_was_learned_from_the_earlier_ones(first: dict[str, Any]) -> None:
    assert first["is_simulated"] and not first["was_walked"]
    assert (first["train"]["payments"], first["judged"]["payments"]) == (COUNT * 4 // 5, COUNT // 5)
    assert first["train"]["frauds"] + first["judged"]["frauds"] == FRAUDS
    figures, share = first["figures"], first["judged"]["frauds"] / first["judged"]["payments"]
    assert figures["auroc"] > 0.7 and figures["average_precision"] > 5 * share, "far better than chance, on rows that it never saw"
    assert [budget["share"] for budget in figures["at_budget"]] == [0.001, 0.005, 0.01]
    assert all(0 <= budget["recall"] <= budget["most_recall"] and budget["found"] <= budget["alerts"] for budget in figures["at_budget"])
    assert first["without_graph"] == figures and "there is no graph" in first["graph"]


def test_alerts_are_the_scores_above_the_threshold_in_both_stores(log: OwnLog, first: dict[str, Any]) -> None:
    from infra.judging import scores

    reached = [score for score in scores(log.fresh())["score"].to_pylist() if score >= first["threshold"]]
    alerts = first["alerts"]
    assert alerts["are_same"] and alerts["table"] == alerts["dynamodb"] == len(reached) > 0
    assert 0 < alerts["frauds_among_them"] <= alerts["of_these_payments"] == len(reached)


def test_the_view_has_every_payment_with_its_class_and_the_warehouse_equals_the_log(log: OwnLog, first: dict[str, Any]) -> None:
    assert first["warehouse"] == {"payments": COUNT, "with_class": COUNT, "frauds": FRAUDS}
    fresh = log.fresh()
    proofs = [fresh.verifier(30.0).log(), fresh.verifier(30.0).projection(fresh.warehouse())]
    assert all(proof.is_ok for proof in proofs), proofs


def test_walked_again_nothing_is_learned_or_sent_and_the_figures_are_the_same(first: dict[str, Any], log: OwnLog) -> None:
    labels = "SELECT count(*) FROM warehouse.fact_transaction_label"
    assert query(log.composition.warehouse_dsn, labels) == [(COUNT,)]
    again = walk(log)
    assert again["was_walked"]
    assert {name: again[name] for name in ("figures", "alerts", "warehouse", "model_version")} == {
        name: first[name] for name in ("figures", "alerts", "warehouse", "model_version")
    }
    assert query(log.composition.warehouse_dsn, labels) == [(COUNT,)]
