"""The analysts' queries, each against a small warehouse with a known answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from domain.errors import InvalidValue
from projections.errors import ProjectionError
from projections.warehouse import WarehouseGenerations, WarehouseProjection
from projections.warehouse.queries import PostgresAnalyst, Query, queries, query_of
from tests.unit.projections.warehouse.databases import fresh_database, query

END = datetime(2026, 3, 1, tzinfo=UTC)
AT = END.isoformat()
TRANSACTION = """
INSERT INTO warehouse_g1.fact_transaction (tx_id, network, kind, status, source_wallet_id, target_wallet_id, amount, asset, occurred_at,
    occurred_hour, merchant_category, origin_source, origin_mapping, origin_ingest_id, origin_row, seq, ingested_at, log_partition,
    log_offset)
VALUES (%(tx_id)s, 'bank', %(kind)s, %(status)s, %(source)s, %(target)s, %(amount)s, %(asset)s, %(at)s, date_trunc('hour', %(at)s), NULL,
    'test', 'test@1', 'test', %(seq)s, %(seq)s, %(at)s, 0, %(seq)s)
"""
CASE_EVENT = """
INSERT INTO warehouse_g1.fact_case_event (event_type, case_id, wallet_id, verdict, assignee, actor, known_at, seq, ingested_at,
    log_partition, log_offset)
VALUES (%(type)s, %(case)s, 'bank:a', %(verdict)s, %(assignee)s, %(actor)s, %(at)s, NULL, %(at)s, 0, %(offset)s)
"""
ALERT = """
INSERT INTO warehouse_g1.fact_alert (case_id, wallet_id, reason, score, threshold, tx_id, tx_seq, explanation, model_version, known_at, seq,
    ingested_at, log_partition, log_offset)
VALUES (%(case)s, 'bank:a', 'score', %(score)s, 0.5, %(tx_id)s, %(seq)s, '', 'm-1', %(at)s, NULL, %(at)s, 0, %(seq)s)
"""
ALERT_TRANSACTION = """
INSERT INTO warehouse_g1.fact_alert_transaction (case_id, wallet_id, tx_id, tx_seq, score, known_at, seq, ingested_at, log_partition,
    log_offset)
VALUES (%(case)s, 'bank:a', %(tx_id)s, %(seq)s, %(score)s, %(at)s, NULL, %(at)s, 0, %(seq)s)
"""
PRICE = """
INSERT INTO warehouse_g1.fact_asset_price (asset, quote_asset, price, source, priced_at, ingested_at, log_partition, log_offset)
VALUES (%(asset)s, 'USD', %(price)s, 'test', %(at)s, %(at)s, 0, %(offset)s)
"""
VOID = """
INSERT INTO warehouse_g1.fact_wallet_control (event_type, tx_id, reason, actor, known_at, seq, ingested_at, log_partition, log_offset)
VALUES (%(type)s, %(tx_id)s, %(reason)s, %(actor)s, %(at)s, %(seq)s, %(at)s, 0, %(offset)s)
"""


class Filled:
    """Rows by hand, one place in the log after the other."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._seq = 0

    def send(
        self,
        source: str,
        target: str,
        amount: str,
        hours_ago: float,
        *,
        kind: str = "transfer",
        status: str = "settled",
        asset: str = "EUR",
    ) -> tuple[str, int]:
        seq, self._seq = self._seq, self._seq + 1
        values = {
            "tx_id": f"bank:{seq}:0", "kind": kind, "status": status, "asset": asset,
            "source": f"bank:{source}", "target": f"bank:{target}",
            "amount": Decimal(amount), "at": END - timedelta(hours=hours_ago), "seq": seq,
        }  # fmt: skip
        self._connection.execute(TRANSACTION, values)
        return f"bank:{seq}:0", seq

    def run(self, statement: str, **values: Any) -> None:
        self._connection.execute(statement.encode(), values)


@pytest.fixture(scope="module")
def analyst(postgres_dsn: str) -> Iterator[PostgresAnalyst]:
    with fresh_database(postgres_dsn) as dsn:
        warehouse = WarehouseProjection(dsn)
        warehouse.load_position()
        filled = Filled(dsn)
        old = filled.send("sleeper", "shop", "5", 24 * 40)
        filled.send("a", "b", "10", 24 * 7 + 2)
        for n in range(12):
            filled.send(f"payer-{n}", "collector", "100.5", 5)
        filled.send("collector", "away", "1100", 4)
        filled.send("loop", "loop", "3", 4)
        for n in range(4):
            filled.send("smurf", f"r-{n}", "9500", 3, kind="transfer")
        for n in range(20):
            filled.send("a", "shop", "1", 2.5, kind="payment", status="declined" if n < 5 else "settled")
        filled.send("sleeper", "b", "7", 2)
        void = filled.send("a", "b", "999999", 2)
        last = filled.send("a", "b", "10.25", 1.5)
        filled.run(VOID, type="TransactionVoided", tx_id=void[0], reason="chargeback", actor=None, at=END, seq=void[1], offset=1)
        filled.run(VOID, type="WalletReleased", tx_id=None, reason="=cmd()", actor="rita", at=END - timedelta(hours=3), seq=None, offset=2)
        for case, score, (tx_id, seq), days in (("c-1", 0.91, old, 9), ("c-2", 0.95, void, 5), ("c-3", 0.55, last, 1)):
            at = END - timedelta(days=days)
            filled.run(ALERT, case=case, score=score, tx_id=tx_id, seq=seq, at=at)
            filled.run(ALERT_TRANSACTION, case=case, score=score, tx_id=tx_id, seq=seq, at=at)
        at = END - timedelta(days=4)
        for offset, (kind, case, verdict, assignee) in enumerate(
            (
                ("CaseAssigned", "c-1", None, "otto"),
                ("VerdictReached", "c-1", "not_fraud", None),
                ("VerdictReached", "c-1", "fraud", None),
                ("CaseClosed", "c-1", None, None),
                ("CaseAssigned", "c-2", None, "otto"),
                ("CaseAssigned", "c-2", None, "rita"),
                ("VerdictReached", "c-2", "not_fraud", None),
            )
        ):
            filled.run(CASE_EVENT, type=kind, case=case, verdict=verdict, assignee=assignee, actor="otto", at=at, offset=offset)
            at += timedelta(hours=1)
        for kind, asset, hours in (("trade", "ETH", 30.0), ("trade", "ETH", 26.0), ("trade", "BTC", 26.0), ("trade", "USD", 26.0)):
            filled.send("trader", "venue", "2", hours, kind=kind, asset=asset)
        for offset, (asset, price, hours) in enumerate((("ETH", 100, 40), ("ETH", 150, 28), ("ETH", 999, 1), ("DOGE", 1, 40))):
            filled.run(PRICE, asset=asset, price=price, at=END - timedelta(hours=hours), offset=offset)
        filled.run("INSERT INTO warehouse_g1.dim_time SELECT %(at)s, 2026, 1, 2, 28, 23, 2026, 9, 6, true", at=END - timedelta(hours=1))
        WarehouseGenerations(dsn).publish(1)
        yield PostgresAnalyst(dsn)
        warehouse.close()


def ask(analyst: PostgresAnalyst, name: str, *columns: str, **given: str) -> list[tuple[Any, ...]]:
    """Some columns of the answer."""
    answer = analyst.ask(query_of(name), given)
    places = [answer.columns.index(column) for column in columns]
    return [tuple(row[place] for place in places) for row in answer.rows]


def test_a_wallets_history_newest_first_says_what_is_void(analyst: PostgresAnalyst) -> None:
    found = ask(analyst, "wallet-history", "direction", "counterparty_id", "amount", "is_void", wallet_id="bank:b")
    assert found == [
        ("in", "bank:a", Decimal("10.25"), False), ("in", "bank:a", 999999, True), ("in", "bank:sleeper", 7, False),
        ("in", "bank:a", 10, False),
    ]  # fmt: skip


def test_each_hour_stands_beside_the_same_hour_a_week_before(analyst: PostgresAnalyst) -> None:
    found = ask(analyst, "hourly-volume", "hour_of_day", "transactions", "week_before", "amount", "amount_week_before")
    assert found[-1] == (END - timedelta(hours=2), 2, 1, Decimal("17.25"), 10)
    assert sum(row[1] for row in found) == 12 + 1 + 1 + 4 + 15 + 2


def test_amounts_just_below_a_bound_are_found(analyst: PostgresAnalyst) -> None:
    assert ask(analyst, "structuring", "wallet_id", "transactions", "receivers", "amount", bound="10000", asset="EUR") == [
        ("bank:smurf", 4, 4, 38000)
    ]
    assert ask(analyst, "structuring", "wallet_id", bound="9500", asset="EUR") == [], "the bound itself is not below it"


def test_wallets_that_many_paid_are_found(analyst: PostgresAnalyst) -> None:
    assert ask(analyst, "fan-in", "wallet_id", "senders", "amount") == [("bank:collector", 12, 1206)]


def test_wallets_that_pass_on_what_they_get_are_found(analyst: PostgresAnalyst) -> None:
    assert ask(analyst, "rapid-movement", "wallet_id", "amount_in", "amount_out", amount="1000") == [("bank:collector", 1206, 1100)]
    assert ask(analyst, "rapid-movement", "wallet_id", amount="1000", share_percent="95") == []


def test_the_last_verdict_counts_for_precision(analyst: PostgresAnalyst) -> None:
    found = ask(analyst, "alert-precision", "model_version", "score_from", "alerts", "decided", "fraud", "precision_of_decided")
    assert found == [("m-1", 0.9, 2, 2, 1, 0.5), ("m-1", 0.5, 1, 0, 0, None)]


def test_a_wallet_that_was_quiet_and_sends_again_is_found(analyst: PostgresAnalyst) -> None:
    assert ask(analyst, "waking-wallets", "wallet_id", "transactions") == [("bank:sleeper", 1)]
    assert ask(analyst, "waking-wallets", "wallet_id", quiet_days="60") == []
    assert ask(analyst, "waking-wallets", "wallet_id", seen_days="7") == []


def test_merchants_stand_in_order_of_their_failed_share(analyst: PostgresAnalyst) -> None:
    assert ask(analyst, "failing-merchants", "merchant_id", "payments", "failed", "failed_share") == [("bank:shop", 20, 5, 0.25)]


def test_cases_that_are_not_closed_stand_with_their_age_and_who_has_them(analyst: PostgresAnalyst) -> None:
    found = ask(analyst, "case-ageing", "case_id", "age_hours", "assignee", "verdict", at=AT)
    assert found == [("c-2", 120, "rita", "not_fraud"), ("c-3", 24, None, None)]
    assert ask(analyst, "case-ageing", "case_id") == [("c-2",), ("c-3",)], "by default as of now, not of the last transaction"


def test_who_did_what_is_said_newest_first(analyst: PostgresAnalyst) -> None:
    found = ask(analyst, "who-did-what", "actor", "event_type", "detail", at=AT)
    assert found[0] == ("rita", "WalletReleased", "=cmd()") and len(found) == 8, "what nobody decided is not there"
    assert [row[0] for row in ask(analyst, "who-did-what", "event_type", actor="rita", at=AT)] == ["WalletReleased"]


def test_a_cases_transactions_say_what_became_of_them(analyst: PostgresAnalyst) -> None:
    assert ask(analyst, "case-transactions", "amount", "score", "is_void", case_id="c-2") == [(999999, 0.95, True)]


def test_what_a_wallet_moved_stands_day_by_day_with_whom(analyst: PostgresAnalyst) -> None:
    found = ask(analyst, "wallet-flows", "day", "counterparty_id", "amount_in", "amount_out", "transactions", wallet_id="bank:collector")
    today = END - timedelta(days=1)
    assert found[0] == (today, "bank:away", 0, 1100, 1)
    assert ask(analyst, "wallet-flows", "amount_in", "amount_out", "transactions", wallet_id="bank:loop") == [(0, 3, 1)]
    assert found[1:] == [(today, f"bank:payer-{n}", Decimal("100.5"), 0, 1) for n in sorted(range(12), key=str)]


def test_trades_are_worth_what_each_cost_at_its_moment(analyst: PostgresAnalyst) -> None:
    found = ask(analyst, "trading-volume", "asset", "trades", "amount", "worth", "unpriced")
    assert found == [("ETH", 2, 4, 2 * 100 + 2 * 150, 0), ("BTC", 1, 2, None, 1), ("USD", 1, 2, 2, 0)]
    assert ask(analyst, "trading-volume", "asset", "worth", quote="EUR")[0] == ("ETH", None)


def test_wallets_that_deal_with_many_are_hubs(analyst: PostgresAnalyst) -> None:
    found = ask(analyst, "hubs", "wallet_id", "counterparties", "sent", "received", at_least="3")
    assert found == [("bank:collector", 13, 1, 12), ("bank:smurf", 4, 4, 0)]


def test_wallets_that_do_many_times_more_than_before_are_found(analyst: PostgresAnalyst) -> None:
    found = ask(analyst, "sudden-growth", "wallet_id", "transactions", "before", "times_as_many", at_least="13")
    assert found == [("bank:a", 21, 1, 21 * 14.0), ("bank:shop", 20, 0, None), ("bank:collector", 13, 0, None)]
    assert ask(analyst, "sudden-growth", "wallet_id", at_least="13", times="300") == [("bank:shop",), ("bank:collector",)]


def test_links_say_who_paid_whom_how_often_and_who_is_alerted(analyst: PostgresAnalyst) -> None:
    found = ask(analyst, "links", "source_wallet_id", "target_wallet_id", "transactions", "source_is_alerted", "target_is_alerted")
    assert found[0] == ("bank:a", "bank:shop", 15, 1, 0) and ("bank:a", "bank:b", 2, 1, 0) in found
    assert ("bank:trader", "bank:venue", 4, 0, 0) in found and len(found) == 2 + 12 + 1 + 4 + 1 + 1


def test_every_query_is_answered_here_and_nothing_can_be_written(analyst: PostgresAnalyst) -> None:
    assert len(queries()) >= 10
    with pytest.raises(InvalidValue, match="wallet_id: wallet-history needs it"):
        analyst.ask(query_of("wallet-history"), {})
    with pytest.raises(ProjectionError, match="read-only"):
        analyst.ask(Query("writes", "", {}, "SELECT lo_create(0)"), {})


def test_a_generation_of_before_gets_the_indexes_when_it_is_opened(postgres_dsn: str) -> None:
    named = "SELECT count(*) FROM pg_indexes WHERE indexname = 'ix_fact_transaction_wallets'"
    with fresh_database(postgres_dsn) as dsn:
        for is_first in (True, False):
            warehouse = WarehouseProjection(dsn)
            warehouse.load_position()
            warehouse.close()
            assert query(dsn, named) == [(1,)]
            if is_first:
                query(dsn, "DROP INDEX warehouse_g1.ix_fact_transaction_wallets")
