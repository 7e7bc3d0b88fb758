"""What the store holds against what the log implies: every kind of alteration shows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest

from domain.events import (
    AlertExtended,
    AlertRaised,
    AlertReason,
    CaseAssigned,
    CaseClosed,
    CaseOpened,
    Label,
    Origin,
    TransactionHeld,
    TransactionLabelled,
    TransactionReleased,
    TransactionVoided,
    Verdict,
    VerdictReached,
    WalletFrozen,
    WalletLabelled,
    WalletReleased,
)
from domain.prices import AssetPriced
from domain.storefront import StorefrontEventKind, StorefrontEventRecorded
from projections.errors import StoreDisagrees
from projections.protocol import EventBatch
from projections.warehouse import WarehouseProjection
from projections.warehouse.facts import FACTS
from projections.warehouse.tables import warehouse_metadata
from tests.unit.projections.warehouse.comparison import expected_rows, stored_rows
from tests.unit.projections.warehouse.databases import fresh_database, query
from tests.unit.projections.warehouse.events import (
    START,
    Placed,
    batch_of,
    deployed,
    described,
    embedded,
    position_after,
    rescored,
    scored,
    trained,
    transaction,
)

TABLES = tuple(warehouse_metadata().tables)
WALLET, TX = "ethereum:0xa", transaction(5).tx_id


def every_event_type() -> list[Placed]:
    """At least one record of each event type that the warehouse reads."""
    at = START + timedelta(days=1)
    events = [
        *(transaction(i) for i in range(12)),
        scored(5, tx_seq=30),
        rescored(5, tx_seq=30, model_version="m3"),
        TransactionLabelled(TX, Label.ILLICIT, "list", at),
        WalletLabelled(WALLET, Label.LICIT, "list", at),
        described(WALLET, "one", 1),
        WalletFrozen(WALLET, "sanctions", "ann", at),
        WalletReleased(WALLET, "mistake", "bob", at),
        TransactionHeld(TX, WALLET, "frozen", b"\x00record", at),
        TransactionReleased(TX, WALLET, "checked", "bob", at),
        TransactionVoided(TX, "wrong_mapping", None, at),
        embedded(WALLET),
        AlertRaised("case-1", WALLET, AlertReason.SCORE, 0.99, 0.9, TX, 5, "why", "m1", at),
        AlertExtended("case-1", WALLET, 0.95, transaction(6).tx_id, 6, at),
        AlertRaised("case-2", WALLET, AlertReason.RULE, 1.0, 1.0, TX, 5, "velocity: 20 at once", "", at, "velocity", "standard@1"),
        AlertExtended("case-2", WALLET, 1.0, transaction(7).tx_id, 7, at, "velocity,fan_in", "standard@1"),
        StorefrontEventRecorded(
            "e1",
            "s1",
            StorefrontEventKind.PRODUCT_ADDED,
            "shop",
            WALLET,
            "d1",
            "NL",
            "p1",
            "books",
            Decimal("12.345678901234567891"),
            "EUR",
            None,
            at,
            Origin("file.csv", "storefront_json@1", "run-1", 0),
        ),
        AssetPriced("ETH", "USD", Decimal("1834.120000000000000001"), "exchange", at),
        CaseOpened("case-1", WALLET, "ann", at),
        CaseAssigned("case-1", "bob", "ann", at),
        VerdictReached("case-1", WALLET, Verdict.FRAUD, "same device", "bob", at),
        CaseClosed("case-1", "done", "bob", at),
        trained("m1", 1),
        deployed("m1", 2),
    ]
    return [Placed(event, 0, offset) for offset, event in enumerate(events)]


@pytest.fixture(scope="module")
def batch() -> EventBatch:
    return batch_of(every_event_type())


@pytest.fixture(scope="module")
def filled(postgres_dsn: str, batch: EventBatch) -> Iterator[str]:
    """A warehouse that holds the batch, and a copy of its tables in the schema `saved`."""
    with fresh_database(postgres_dsn) as address:
        projection = WarehouseProjection(address)
        projection.apply(batch, {}, position_after(every_event_type()))
        projection.close()
        copies = (f"CREATE TABLE saved.{name} AS SELECT * FROM warehouse_g1.{name}" for name in TABLES)
        query(address, "; ".join(["CREATE SCHEMA saved", *copies]))
        yield address


@pytest.fixture
def dsn(filled: str) -> Iterator[str]:
    yield filled
    restore = (f"TRUNCATE warehouse_g1.{name}; INSERT INTO warehouse_g1.{name} TABLE saved.{name}" for name in TABLES)
    query(filled, "; ".join(restore))


def test_every_event_type_read_is_in_this_test(batch: EventBatch) -> None:
    assert set(batch.tables) == set(WarehouseProjection.reads)


def test_every_table_equals_the_log(dsn: str, batch: EventBatch) -> None:
    warehouse = WarehouseProjection(dsn)
    stored = stored_rows(warehouse)
    assert stored == expected_rows(warehouse, batch)
    assert {fact.table for fact in FACTS} | {"dim_wallet", "dim_asset", "dim_time", "dim_model"} == set(stored)


ALTERATIONS = {
    "amount by the smallest unit": "UPDATE fact_transaction SET amount = amount + 0.000000000000000001 WHERE seq = 0",
    "null for a value": "UPDATE fact_transaction SET counter_asset = NULL WHERE counter_asset IS NOT NULL",
    "time by a microsecond": "UPDATE fact_transaction SET occurred_at = occurred_at + interval '1 microsecond'",
    "one card feature": "UPDATE fact_transaction SET card_features[28] = -card_features[28] WHERE kind = 'payment'",
    "a shorter feature list": "UPDATE fact_transaction SET card_features = card_features[1:27]",
    "text": "UPDATE fact_transaction SET tx_id = upper(tx_id)",
    "place in the log": "UPDATE fact_transaction SET log_offset = 1000 WHERE log_offset = 3",
    "rules that spoke": "UPDATE fact_alert_rule SET rules = 'velocity' WHERE tx_seq = 7",
    "a visit's amount": "UPDATE fact_storefront_event SET amount = amount + 0.000000000000000001",
    "a price": "UPDATE fact_asset_price SET price = price - 0.000000000000000001",
    "topic": "UPDATE fact_score SET log_topic = 'other'",
    "row lost": "DELETE FROM fact_transaction WHERE log_offset = 3",
    "row added": "INSERT INTO dim_wallet VALUES ('a:b', 0, 'a', 'unknown', null, null, null, null, null, true)",
    "score": "UPDATE fact_score SET score = score + 1e-16",
    "score of another model": "UPDATE fact_rescore SET score = score + 1e-16",
    "vector": r"UPDATE fact_wallet_embedding SET vector = set_byte(vector, 0, 1)",
    "label": "UPDATE fact_wallet_label SET label = 'illicit'",
    "verdict": "UPDATE fact_case_event SET verdict = 'not_fraud' WHERE verdict IS NOT NULL",
    "alert": "DELETE FROM fact_alert_transaction WHERE tx_seq = 6",
    "current description": "UPDATE dim_wallet SET is_current = NOT is_current WHERE description_number = 1",
    "calendar": "UPDATE dim_time SET iso_week = iso_week + 1",
    "model": "UPDATE dim_model SET package_uri = 'elsewhere'",
}


@pytest.mark.parametrize("statement", ALTERATIONS.values(), ids=ALTERATIONS.keys())
def test_an_altered_store_does_not_equal_the_log(dsn: str, batch: EventBatch, statement: str) -> None:
    query(dsn, f"SET search_path TO warehouse_g1; {statement}")
    warehouse = WarehouseProjection(dsn)
    assert stored_rows(warehouse) != expected_rows(warehouse, batch)


UNREADABLE = {
    "not a number": "UPDATE fact_transaction SET amount = 'NaN'",
    "an array that starts elsewhere": "UPDATE fact_transaction SET card_features[28] = 1 WHERE kind = 'transfer'",
}


@pytest.mark.parametrize("statement", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_value_that_was_never_written_is_named_as_a_disagreement(dsn: str, statement: str) -> None:
    query(dsn, f"SET search_path TO warehouse_g1; {statement}")
    with pytest.raises(StoreDisagrees, match="never written"):
        stored_rows(WarehouseProjection(dsn))


def test_an_unaltered_store_is_read_twice_alike(dsn: str) -> None:
    warehouse = WarehouseProjection(dsn)
    assert stored_rows(warehouse) == stored_rows(warehouse)


def test_views_answer_with_labels_and_descriptions_as_known_at_the_time(dsn: str) -> None:
    warehouse = WarehouseProjection(dsn)
    warehouse.refresh()
    query(dsn, "UPDATE warehouse_g1.fact_transaction SET source_wallet_id = 'ethereum:0xa'")
    features = "SELECT source_label_known_before, source_kind_at, transaction_label, score FROM warehouse_g1.v_fraud_features"
    assert query(dsn, f"{features} WHERE tx_id = '{TX}'") == [(None, "unknown", "illicit", 0.5)]
    query(dsn, "UPDATE warehouse_g1.fact_transaction SET occurred_at = occurred_at + interval '2 days'")
    assert query(dsn, f"{features} WHERE tx_id = '{TX}'") == [("licit", "exchange", "illicit", 0.5)]
    assert query(dsn, "SELECT sum(transactions), sum(settled_transactions) FROM warehouse_g1.mv_hourly_volume") == [(11, 9)]  # one is void
    assert query(dsn, "SELECT count(*) > 0 FROM warehouse_g1.mv_wallet_behaviour WHERE n_in + n_out > 0") == [(True,)]
