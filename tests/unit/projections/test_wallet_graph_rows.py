"""Events become rows of the wallet graph: exact sums, folds that may be cut anywhere, captions to compare by eye."""

from __future__ import annotations

from decimal import Decimal, localcontext

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.values import EXACT
from projections import wallet_graph_rows as rows_of
from projections.wallet_graph_statements import UNIT
from tests.integration.projections.wallet_graph_log import SmallLog

AMOUNTS = st.decimals(min_value=0, max_value=Decimal("99999999999999999999"), places=18, allow_nan=False)


@settings(max_examples=30, deadline=None)
@given(st.lists(AMOUNTS, min_size=1, max_size=12), st.integers(1, 5))
def test_sums_are_exact_and_the_same_for_any_cut(amounts: list[Decimal], rows: int) -> None:
    log = SmallLog()
    for amount in amounts:
        log.send("test:a", "test:b", format(amount, "f"))
    pieces = []
    for batch, _, _ in log.batches(rows):
        events = rows_of.frame(batch, "TransactionRecorded")
        assert events is not None
        pieces.append(rows_of.flows(events))
    (total,) = rows_of.exact_sums(rows_of.fold_flows(pl.concat(pieces)))
    with localcontext(EXACT):
        assert total == int(sum(amounts, Decimal(0)) * UNIT)
    high, whole, parts = rows_of.three_integers(total)
    assert (high * UNIT + whole) * UNIT + parts == total
    assert 0 <= whole < UNIT and 0 <= parts < UNIT


def test_a_failed_or_one_sided_transaction_moves_nothing() -> None:
    log = SmallLog()
    for status in ("failed", "declined"):
        log.send("test:a", "test:b", status=status)
    log.send("test:a", None)
    log.send(None, "test:b")
    for batch in log.whole():
        events = rows_of.frame(batch, "TransactionRecorded")
        assert events is not None
        assert rows_of.flows(events).is_empty()


@pytest.mark.parametrize(
    ("amount", "expected"),
    [("0", "0"), ("0.000000000000000001", "0.000000000000000001"), ("100", "100"), ("1.50", "1.5")],
)
def test_an_amount_is_plain_text_without_trailing_zeros(amount: str, expected: str) -> None:
    log = SmallLog()
    log.send("test:a", "test:b", amount)
    events = rows_of.frame(next(log.whole()), "TransactionRecorded")
    assert events is not None
    assert rows_of.sent(events)["amount"].to_list() == [expected]


@pytest.mark.parametrize(
    ("wallet", "expected"),
    [
        ("ethereum:0xbbdef8b12babd3ab6018566bc17ec3aa302b8348", "0xbbde …8348"),
        ("card:9f3a", "9f3a"),
        ("bank:a:b", "a:b"),
    ],
    ids=["address", "short", "colon"],
)
def test_a_caption_shows_the_ends_of_an_address(wallet: str, expected: str) -> None:
    frame = pl.DataFrame({"wallet_id": [wallet]})
    assert frame.select(rows_of.captions(pl.col("wallet_id"))).item() == expected
    assert frame.select(rows_of.network(pl.col("wallet_id"))).item() == wallet.split(":")[0]


def test_a_self_transfer_has_two_ends() -> None:
    log = SmallLog()
    log.send("test:a", "test:a")
    events = rows_of.frame(next(log.whole()), "TransactionRecorded")
    assert events is not None
    assert rows_of.wallets_of(events).rows() == [("test:a", 2)]


def test_each_revision_meets_the_first_void_behind_it() -> None:
    log = SmallLog()
    tx_id = log.send("test:a", "test:b", "1")
    log.void(tx_id, "first")
    log.send("test:a", "test:b", "2", tx_id=tx_id)
    log.send("test:a", "test:b", "3")
    log.void(tx_id, "second")
    log.send("test:a", "test:b", "4", tx_id=tx_id)
    batches = list(log.whole())
    (transactions,) = (found for batch in batches if (found := rows_of.frame(batch, "TransactionRecorded")) is not None)
    (voids,) = (found for batch in batches if (found := rows_of.voids(batch)) is not None)
    marked = rows_of.marked(transactions, voids)
    assert marked.select("_seq", "void_seq", "void_reason").rows() == [(0, 0, "first"), (1, 2, "second"), (2, None, None), (3, None, None)]
    assert rows_of.standing(marked)["_seq"].to_list() == [2, 3]
    assert rows_of.wallets_of(marked).sort("wallet_id").rows() == [("test:a", 2), ("test:b", 2)]
