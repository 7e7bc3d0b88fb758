"""The dashboard's SQL on a filled warehouse, in both dialects, against sums made here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from domain.events import AlertExtended, AlertRaised, AlertReason, CaseClosed, CaseOpened, TransactionVoided, Verdict, VerdictReached
from domain.storefront import StorefrontEventKind, StorefrontEventRecorded
from infra.dashboards.gather import SCORE_BINS, figures_of
from infra.dashboards.model import Figures, Funnel, Visits, Volume, begin_of
from infra.settings import S3Settings
from projections.errors import ProjectionError
from projections.warehouse import SchemaGenerations, WarehouseProjection
from projections.warehouse.reading import reading
from projections.warehouse.redshift_generations import RedshiftGenerations
from tests.integration.projections.redshift_store import redshift_store
from tests.unit.projections.warehouse.databases import fresh_database
from tests.unit.projections.warehouse.events import ARRIVED_MS, START, Placed, batch_of, described, position_after, scored, transaction

COUNT, VOID = 120, 5
RISKY, CLEARED, GUILTY = (f"ethereum:0x{i:040x}" for i in (3, 4, 5))
EVENTS = [transaction(i) if i % 10 else replace(transaction(i), network="card", asset="EUR") for i in range(COUNT)]
STANDING = [event for event in EVENTS if event.tx_id != transaction(VOID).tx_id]


def alert(case_id: str, wallet_id: str, score: float, minutes: int) -> AlertRaised:
    at = START + timedelta(minutes=minutes)
    return AlertRaised(case_id, wallet_id, AlertReason.SCORE, score, 0.5, transaction(minutes).tx_id, minutes, "why", "m1", at)


def cases() -> list[Any]:
    later = START + timedelta(hours=1)
    return [
        alert("c1", RISKY, 0.9, 20),
        AlertExtended("c1", RISKY, 0.95, transaction(30).tx_id, 30, START + timedelta(minutes=30)),
        alert("c2", CLEARED, 0.8, 40),
        alert("c3", GUILTY, 0.99, 60),
        CaseOpened("c1", RISKY, "ann", later),
        VerdictReached("c2", CLEARED, Verdict.FRAUD, "at first", "ann", later),
        VerdictReached("c2", CLEARED, Verdict.NOT_FRAUD, "on second thoughts", "ann", later),
        VerdictReached("c3", GUILTY, Verdict.FRAUD, "mixer", "ann", later),
        CaseClosed("c3", "reported", "ann", later),
    ]


def steps() -> list[StorefrontEventRecorded]:
    """Three visits: one that orders (a step of it sent twice), one that fills its basket, one that looks around."""
    reached = {"s1": tuple(StorefrontEventKind)[1:], "s2": tuple(StorefrontEventKind)[1:5], "s3": (StorefrontEventKind.PAGE_VIEWED,)}
    found = [
        StorefrontEventRecorded(
            f"{session}-{kind}", session, kind, "shop", None, None, None, None, None, None, None, None, START, transaction(1).origin
        )
        for session, kinds in reached.items()
        for kind in kinds
    ]  # fmt: skip
    return [*found, found[2]]


def filled() -> list[Placed]:
    placed = [Placed(event, i % 6, i // 6) for i, event in enumerate(EVENTS)]
    placed += [Placed(scored(i, score=i / 10), i % 6, i // 6) for i in range(11)]
    placed += [Placed(event, 0, i) for i, event in enumerate(cases())]
    placed += [Placed(event, 0, i) for i, event in enumerate(steps())]
    voided = TransactionVoided(transaction(VOID).tx_id, "wrong mapping", None, START + timedelta(hours=2))
    return [*placed, Placed(voided, 0, 50), Placed(described(RISKY, "Some Exchange", -1), 0, 0)]


@pytest.fixture(scope="module")
def dsn(postgres_dsn: str) -> Iterator[str]:
    with fresh_database(postgres_dsn) as found:
        placed = filled()
        warehouse = WarehouseProjection(found)
        warehouse.apply(batch_of(placed), {}, position_after(placed))
        SchemaGenerations(found, "warehouse").publish(1)
        yield found
        warehouse.close()


def figures(dsn: Any, days: int | None = None) -> Figures:
    with reading(dsn) as select:
        return figures_of(select, days)


def expected_volume() -> list[Volume]:
    found: dict[tuple[Any, ...], Volume] = {}
    for event in STANDING:
        key = (begin_of(event.occurred_at, "hour"), event.network, event.asset)
        before = found.get(key, Volume(*key, 0, 0, Decimal(0)))
        is_settled = event.status.value == "settled"
        amount = before.amount + (event.amount if is_settled else 0)
        found[key] = Volume(*key, before.transactions + 1, before.settled + is_settled, amount)
    return [found[key] for key in sorted(found)]


def test_volume_is_the_same_before_and_after_the_view_was_refreshed(dsn: str) -> None:
    before = figures(dsn)
    assert before.window is not None and before.window.step == "hour"
    assert before.fresh_from == before.window.since, "nothing was refreshed yet: all of it comes from the facts"
    assert list(before.volume) == expected_volume()
    WarehouseProjection(dsn).refresh()
    after = figures(dsn)
    assert after.fresh_from == begin_of(EVENTS[-1].occurred_at, "hour")
    assert after.volume == before.volume


def test_what_came_late_or_was_taken_back_since_the_view_was_refreshed_is_counted(postgres_dsn: str) -> None:
    with fresh_database(postgres_dsn) as found:
        placed = [Placed(event, 0, i) for i, event in enumerate(EVENTS)]
        warehouse = WarehouseProjection(found)
        warehouse.apply(batch_of(placed), {}, position_after(placed))
        SchemaGenerations(found, "warehouse").publish(1)
        warehouse.refresh()
        assert figures(found).stale == 0
        late = [Placed(replace(transaction(900 + i), occurred_at=START), 1, i) for i in range(3)]
        warehouse.apply(batch_of(late), {}, position_after(late))
        warehouse.close()
        assert figures(found).stale == 3


def test_a_window_of_days_leaves_out_what_is_older(postgres_dsn: str) -> None:
    old = replace(transaction(1), tx_id="old", occurred_at=START - timedelta(days=40))
    placed = [Placed(old, 0, 0), Placed(transaction(2), 0, 1), Placed(alert("c9", RISKY, 0.9, 2), 0, 0)]
    with fresh_database(postgres_dsn) as dsn:
        warehouse = WarehouseProjection(dsn)
        warehouse.apply(batch_of(placed), {}, position_after(placed))
        warehouse.close()
        SchemaGenerations(dsn, "warehouse").publish(1)
        month, whole = figures(dsn, 30), figures(dsn)
    assert sum(one.transactions for one in month.volume) == 1 and not month.window.is_whole
    assert sum(one.transactions for one in whole.volume) == 2 and whole.window.is_whole
    assert month.funnel.alerted == 1


def test_scores_alerts_and_cases_are_counted_once_where_they_stand(dsn: str) -> None:
    found = figures(dsn)
    by_bin = {i: n for i, n in enumerate(found.scores) if n}
    assert by_bin == {**dict.fromkeys(range(0, 20, 2), 1), SCORE_BINS - 1: 1}, "1.0 is in the last bin"
    first = begin_of(START, "hour")
    assert [(one.at, one.alerts) for one in found.alerts] == [(first, 1), (first + timedelta(hours=1), 2)]
    assert found.funnel == Funnel(3, 3, 2, 1, {"fraud": 1, "not_fraud": 1}), "the last verdict of a case counts"
    assert [(one.wallet_id, one.status, one.verdict, one.transactions) for one in found.wallets] == [
        (GUILTY, "closed", "fraud", 1), (RISKY, "open", "", 2), (CLEARED, "decided", "not_fraud", 1),
    ]  # fmt: skip
    assert (found.wallets[1].name, found.wallets[1].kind) == ("Some Exchange", "exchange")


def test_visits_are_counted_once_at_each_step_that_they_reached(dsn: str) -> None:
    assert figures(dsn).visits == Visits(3, 2, 2, 1, 1, 1)


def test_value_at_risk_is_what_undecided_wallets_moved_each_transaction_once(dsn: str) -> None:
    moved = [e for e in STANDING if RISKY in (e.source_wallet_id, e.target_wallet_id) and e.status.value == "settled"]
    assert any(e.source_wallet_id != RISKY for e in moved) and any(e.asset == "ETH" for e in moved)
    found = {one.asset: one for one in figures(dsn).at_risk}
    assert {asset: (one.transactions, one.amount) for asset, one in found.items()} == {
        asset: (sum(e.asset == asset for e in moved), sum((e.amount for e in moved if e.asset == asset), Decimal(0)))
        for asset in {e.asset for e in moved}
    }
    assert found["ETH"].of == sum(e.amount for e in STANDING if e.asset == "ETH" and e.status.value == "settled")


def test_it_says_up_to_where_it_is_true(dsn: str) -> None:
    found = figures(dsn)
    assert found.newest_ingested_at is not None and round(found.newest_ingested_at.timestamp() * 1000) == ARRIVED_MS
    position = position_after(filled())
    assert {one.topic: (one.partitions, one.next_offset) for one in found.position} == {
        topic: (sum(t == topic for t, _ in position), sum(offset for (t, _), offset in position.items() if t == topic))
        for topic, _ in position
    }
    assert found.generation == 1


def test_redshift_gives_the_same_figures(dsn: str, postgres_dsn: str, s3_settings: S3Settings) -> None:
    with redshift_store(postgres_dsn, s3_settings) as store:
        warehouse = store.warehouse()
        placed = filled()
        warehouse.apply(batch_of(placed), {}, position_after(placed))
        RedshiftGenerations(store.database()).publish(1)
        assert replace(figures(store.database()), fresh_from=None) == replace(figures(dsn), fresh_from=None)


def test_nothing_can_be_written_through_it(dsn: str) -> None:
    with pytest.raises(ProjectionError, match="read-only"), reading(dsn) as select:
        select("DELETE FROM warehouse_g1.fact_alert")


def test_facts_of_a_window_are_found_by_their_index(dsn: str) -> None:
    """What is slow on ten rows more than on ten million: the window and the last scores must reach an index."""
    from infra.dashboards import queries as sql

    with psycopg.connect(dsn) as connection:
        connection.execute('SET search_path TO "warehouse"; SET enable_seqscan TO off')
        for statement, index in ((sql.SCORES, "fact_score_pkey"), (sql.AT_RISK, "ix_fact_transaction_occurred_at"), (sql.NEWEST, "_pkey")):
            text = statement
            for name, value in (("since", "'2020-01-01'"), ("bins", "20"), ("per_partition", "10")):
                text = text.replace(f":{name}", value)
            plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {text}".encode()).fetchall())
            assert index in plan
