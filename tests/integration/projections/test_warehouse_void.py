"""What was taken back counts nowhere in the warehouse, and its revision does; the facts themselves stay."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from itertools import permutations

import pytest

from domain.events import TransactionVoided
from projections.warehouse import WarehouseProjection
from tests.unit.projections.warehouse.databases import fresh_database, query
from tests.unit.projections.warehouse.events import START, Placed, batch_of, position_after, scored, transaction

TX = transaction(1).tx_id
AT = START + timedelta(days=1)
# Six partitions at most, so an event at (partition, offset) has the seq offset * 6 + partition.
FIRST, REVISION, LAST = (transaction(1, amount=Decimal(amount), counter_amount=None, counter_asset=None) for amount in (1000, 10, 20))
STORY = [
    Placed(FIRST, 0, 0),  # seq 0
    Placed(TransactionVoided(TX, "wrong unit", None, AT), 0, 0),  # after seq 0
    Placed(transaction(2), 1, 0),  # seq 1
    Placed(REVISION, 2, 1),  # seq 8, in another partition
    Placed(TransactionVoided(TX, "chargeback", "ethereum:other:0", AT + timedelta(days=1)), 0, 2),  # after seq 12
    Placed(LAST, 3, 2),  # seq 15
]


@pytest.fixture
def dsn(postgres_dsn: str) -> Iterator[str]:
    with fresh_database(postgres_dsn) as address:
        yield address


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)], ids=["in order", "voids and revisions first", "voids last"])
def test_every_revision_is_marked_and_only_the_last_counts(dsn: str, order: tuple[int, ...]) -> None:
    assert order in permutations(range(3))
    pieces = [[STORY[0], STORY[2]], [STORY[1], STORY[4]], [STORY[3], STORY[5]]]
    warehouse = WarehouseProjection(dsn)
    position: dict[tuple[str, int], int] = {}
    for piece in (pieces[i] for i in order):
        after = {tp: max(offset, position.get(tp, 0)) for tp, offset in position_after(piece).items()}
        warehouse.apply(batch_of(piece), {tp: position[tp] for tp in after if tp in position}, after)
        position.update(after)
    warehouse.refresh()
    marks = f"SELECT amount, is_void, void_reason, replaced_by FROM warehouse_g1.v_transaction WHERE tx_id = '{TX}' ORDER BY seq"
    assert query(dsn, marks) == [
        (Decimal(1000), True, "wrong unit", None), (Decimal(10), True, "chargeback", "ethereum:other:0"), (Decimal(20), False, None, None),
    ]  # fmt: skip
    assert query(dsn, "SELECT count(*) FROM warehouse_g1.fact_transaction") == [(4,)]
    assert query(dsn, "SELECT sum(transactions), sum(settled_amount) FROM warehouse_g1.mv_hourly_volume") == [
        (2, Decimal(20) + transaction(2).amount)
    ]
    sent = f"SELECT n_out, amount_out FROM warehouse_g1.mv_wallet_behaviour WHERE wallet_id = '{FIRST.source_wallet_id}'"
    assert query(dsn, sent) == [(1, Decimal(20))]


def test_each_revision_has_its_own_score(dsn: str) -> None:
    story = [*STORY, Placed(scored(1, tx_seq=0, score=0.9), 0, 0), Placed(scored(1, tx_seq=15, score=0.2), 0, 1)]
    WarehouseProjection(dsn).apply(batch_of(story), {}, position_after(story))
    found = f"SELECT seq, score, is_void FROM warehouse_g1.v_fraud_features WHERE tx_id = '{TX}' ORDER BY seq"
    assert query(dsn, found) == [(0, 0.9, True), (8, None, True), (15, 0.2, False)]
