"""What a policy would have done is worth what it stopped in time; amounts of several assets are added up by prices of the moment alone."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from domain.policy import Policy, parse_policy
from domain.values import EPOCH
from infra.replay.outcome import FRAUD, HONEST, UNKNOWN, Truth, Variant
from infra.replay.prices import PriceBook, Priced
from infra.rule_alerts import rule_rows
from schema_registry.column_codec import DECIMAL, TIME

HOUR = 3_600_000_000
START = 1_700_000_000_000_000


def policy(**rule: Any) -> Policy:
    whole = {"name": "large", "says": "large", "accuses": "source_wallet_id", "where": {"asset": "ETH"}, "amount_at_least": 100, **rule}
    return parse_policy({"name": "p", "version": 1, "rules": [{**whole, "quiet": "1s"}]})


def table(*rows: tuple[str, str, str, int, str]) -> pa.Table:
    """Rows (tx_id, source, target, amount, asset), an hour apart."""
    return pa.table(
        {
            "tx_id": [row[0] for row in rows],
            "network": ["e"] * len(rows),
            "kind": ["transfer"] * len(rows),
            "status": ["failed" if row[0].startswith("failed") else "settled" for row in rows],
            "source_wallet_id": [row[1] for row in rows],
            "target_wallet_id": [row[2] for row in rows],
            "amount": pa.array([Decimal(row[3]) for row in rows], DECIMAL),
            "asset": [row[4] for row in rows],
            "occurred_at": pa.array([EPOCH + timedelta(microseconds=START + i * HOUR) for i in range(len(rows))], TIME),
            "_seq": range(len(rows)),
        }
    )


def outcome(rows: pa.Table, truth: Truth, react_h: float = 0.5, prices: PriceBook | None = None, step: int | None = None) -> dict[str, Any]:
    variant = Variant("v", policy(), None, truth, prices or PriceBook("USD"), int(react_h * HOUR), START, START + 10 * HOUR)
    for at in range(0, rows.num_rows, step or rows.num_rows):
        part = rows.slice(at, step or rows.num_rows)
        variant.take(part, variant.ruled(list(rule_rows(part))), None)
    return variant.as_json()


ROWS = table(
    ("t0", "e:bad", "e:a", 10, "ETH"), ("t1", "e:bad", "e:b", 100, "ETH"), ("t2", "e:bad", "e:c", 7, "ETH"),
    ("failed", "e:bad", "e:c", 9, "ETH"),
    ("t4", "e:bad", "e:c", 5, "BTC"), ("t5", "e:good", "e:a", 200, "ETH"), ("t6", "e:good", "e:good2", 3, "ETH"),
    ("t7", "e:who", "e:a", 100, "ETH"),
    ("t8", "e:a", "e:who", 1, "ETH"),
)  # fmt: skip
LABELS = Truth({"e:bad": True, "e:good": False, "e:good2": False}, {})


def test_what_follows_an_alert_by_the_time_to_react_is_stopped() -> None:
    found = outcome(ROWS, LABELS)
    assert (found["alerts"], found["true_alerts"], found["false_alarms"], found["alerts_without_label"]) == (3, 1, 1, 1)
    assert found["precision"] == 0.5 and found["recall"] == 1.0 and found["median_hours_to_alert"] == 1.0
    assert found["at_stake"]["by_asset"] == {"BTC": "5", "ETH": "117"} and found["at_stake"]["transactions"] == 4
    assert found["prevented"]["by_asset"] == {"BTC": "5", "ETH": "7"}, "what failed moved nothing, the alert's own came too soon"
    assert found["stopped_for_nothing"]["by_asset"] == {"ETH": "3"}
    assert found["stopped_without_label"]["by_asset"] == {"ETH": "1"}
    assert found["by_rule"] == {"large": 3} and found["by_reason"] == {"rule": 3}


def test_who_reacts_at_once_stops_the_alerted_transaction_too_and_who_reacts_late_stops_less() -> None:
    assert outcome(ROWS, LABELS, 0.0)["prevented"]["by_asset"] == {"BTC": "5", "ETH": "107"}
    assert outcome(ROWS, LABELS, 2.0)["prevented"]["by_asset"] == {"BTC": "5"}
    assert outcome(ROWS, LABELS, 100.0)["prevented"]["transactions"] == 0


def test_how_the_stream_is_cut_into_batches_changes_nothing() -> None:
    assert outcome(ROWS, LABELS, step=1) == outcome(ROWS, LABELS) == outcome(ROWS, LABELS, step=4)


def test_assets_are_added_up_by_prices_as_of_each_transaction_and_what_has_none_is_left_out() -> None:
    prices = [Priced(START, "ETH", Decimal(2)), Priced(START + HOUR, "ETH", Decimal(3)), Priced(START + 9 * HOUR, "BTC", Decimal(1000))]
    found = outcome(ROWS, LABELS, prices=PriceBook("USD", prices))
    assert found["at_stake"]["in_quote"] == str(10 * 2 + 107 * 3) and found["at_stake"]["unpriced"] == 1
    assert outcome(ROWS, LABELS)["at_stake"]["in_quote"] is None


def test_labels_of_transactions_judge_where_wallets_have_none() -> None:
    truth = Truth({}, {"t1": True, "t5": False})
    found = outcome(ROWS, truth, 0.0)
    assert (found["true_alerts"], found["false_alarms"], found["alerts_without_label"]) == (1, 1, 1)
    assert found["at_stake"]["by_asset"] == {"ETH": "100"} == found["prevented"]["by_asset"]
    assert truth.of_alert("x", "t1") == FRAUD and truth.of_alert("x", "t5") == HONEST and truth.of_alert("x", "t9") == UNKNOWN


def test_a_price_is_the_last_that_was_known_and_never_a_later_one() -> None:
    book = PriceBook("USD", [Priced(20, "A", Decimal(2)), Priced(10, "A", Decimal(1)), Priced(20, "A", Decimal(3))])
    assert [book.as_of("A", at) for at in (9, 10, 19, 20, 99)] == [None, 1, 1, 3, 3]
    assert book.as_of("USD", 0) == 1 and book.as_of("B", 99) is None
    assert [one.price for one in book.between(10, 20)] == [3] and len(book) == 2


def test_who_comes_late_is_known_when_it_comes_and_stops_nothing_before() -> None:
    rows = table(
        ("t0", "e:a", "e:b", 1, "ETH"),
        ("t1", "e:bad", "e:b", 100, "ETH"),
        ("t2", "e:bad", "e:c", 7, "ETH"),
        ("t3", "e:bad", "e:c", 5, "ETH"),
    )
    hours = [50, 1, 2, 52]  # the second and third happened long before the first, and came behind it
    times = pa.array([EPOCH + timedelta(microseconds=START + hour * HOUR) for hour in hours], TIME)
    late = rows.set_column(rows.column_names.index("occurred_at"), "occurred_at", times)
    assert outcome(late, LABELS, 1.0)["prevented"]["by_asset"] == {"ETH": "5"}
    assert outcome(late, LABELS, 1.0, step=1) == outcome(late, LABELS, 1.0)
