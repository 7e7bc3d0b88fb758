"""Card payments as `fraud_detection` shows them, on Postgres and on the stand-in for Redshift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.events import Origin, TransactionVoided
from infra.settings import S3Settings
from projections.warehouse import WarehouseGenerations, WarehouseProjection
from tests.integration.projections.redshift_store import redshift_store
from tests.unit.projections.warehouse.databases import fresh_database, query
from tests.unit.projections.warehouse.events import START, Placed, batch_of, position_after, transaction

KAGGLE = ["time", *(f"v{n}" for n in range(1, 29)), "amount", "class"]
COLUMNS = """
SELECT column_name FROM information_schema.columns WHERE table_schema = '{}' AND table_name = 'fraud_detection' ORDER BY ordinal_position
"""
ROWS = "SELECT time, v1, v2, v28, amount, class, tx_id, seq FROM warehouse_g1.fraud_detection ORDER BY seq"


def card(n: int, seconds: float, source: str = "creditcard.csv", **changes: Any) -> Any:
    """The n-th card payment, so long after the first."""
    return replace(
        transaction(3 * n), tx_id=f"card:{n}:0", network="card", source_wallet_id=None, target_wallet_id=None, amount=Decimal(n),
        counter_amount=None, counter_asset=None, occurred_at=START + timedelta(seconds=seconds),
        card_features=tuple(n + i / 64 for i in range(1, 29)), origin=Origin(source, "kaggle_card@1", f"run-{n}", n), **changes,
    )  # fmt: skip


def label(n: int, what: str, days: int) -> tuple[str, dict[str, Any]]:
    """What became known of the n-th payment."""
    return "TransactionLabelled", {"tx_id": f"card:{n}:0", "label": what, "source": "bank", "known_at": START + timedelta(days=days)}


# In partition 0 an event at offset n has the seq 6 n.
STORY = [
    Placed(card(1, 0), 0, 0),
    Placed(card(2, 1.5), 0, 1),
    Placed(card(3, 86_400), 0, 2),
    Placed(card(4, 500, source="other.csv"), 0, 3),
    Placed(transaction(2), 0, 4),  # a payment on another network
    Placed(replace(card(5, 3), card_features=None), 0, 5),
    Placed(TransactionVoided("card:1:0", "chargeback", None, START), 0, 0),  # at seq 0
    Placed(label(2, "licit", 1), 0, 1),
    Placed(label(2, "illicit", 30), 0, 2),
    Placed(label(3, "licit", 1), 0, 3),
    Placed(label(4, "unknown", 2), 0, 4),
]
WANTED = [
    (1.5, 2.015625, 2.03125, 2.4375, Decimal(2), 1, "card:2:0", 6),
    (86_400.0, 3.015625, 3.03125, 3.4375, Decimal(3), 0, "card:3:0", 12),
    (0.0, 4.015625, 4.03125, 4.4375, Decimal(4), None, "card:4:0", 18),
]


@pytest.fixture
def dsn(postgres_dsn: str) -> Iterator[str]:
    with fresh_database(postgres_dsn) as address:
        yield address


def test_it_has_the_columns_of_the_file_and_what_stands_with_its_latest_class(dsn: str) -> None:
    WarehouseProjection(dsn).apply(batch_of(STORY), {}, position_after(STORY))
    assert [name for (name,) in query(dsn, COLUMNS.format("warehouse_g1"))] == [*KAGGLE, "tx_id", "seq", "occurred_at"]
    assert query(dsn, ROWS) == WANTED


def test_redshift_shows_the_same(postgres_dsn: str, s3_settings: S3Settings) -> None:
    with redshift_store(postgres_dsn, s3_settings) as store:
        store.warehouse().apply(batch_of(STORY), {}, position_after(STORY))
        assert query(store.behind, ROWS) == WANTED


def test_a_generation_of_before_gets_the_view_and_readers_are_shown_it(dsn: str) -> None:
    warehouse = WarehouseProjection(dsn)
    warehouse.apply(batch_of(STORY), {}, position_after(STORY))
    warehouse.close()
    query(dsn, "DROP VIEW warehouse_g1.fraud_detection")
    generations = WarehouseGenerations(dsn)
    generations.publish(1)
    assert generations.shows(1)
    WarehouseProjection(dsn).load_position()  # as each start of the worker
    assert not generations.shows(1)
    generations.publish(1)
    assert [name for (name,) in query(dsn, COLUMNS.format("warehouse"))][: len(KAGGLE)] == KAGGLE
    assert query(dsn, "SELECT count(*), sum(class) FROM warehouse.fraud_detection") == [(3, 1)]
