"""A simulated shop: the same seed the same stream, visits that make sense, fraud that the shop's rules find."""

from __future__ import annotations

import csv
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.events import Origin
from domain.rules import RuleEngine
from infra.cli.app import run
from infra.lambdas.fraud_rules import rule_row
from infra.lambdas.json_fields import object_of
from infra.lambdas.storefront_json import storefront_event_of
from infra.lambdas.transaction_json import transaction_of
from infra.policy_files import read_policy
from infra.simulator.storefront import PATTERNS, ShopOptions, simulate_shop

ORIGIN = Origin("f", "m", "i", 0)
OPTIONS = ShopOptions(seed=5, sessions=400, frauds=3)
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def test_the_same_options_give_the_same_stream_and_another_seed_another() -> None:
    first, again, other = (simulate_shop(options) for options in (OPTIONS, OPTIONS, ShopOptions(seed=6, sessions=400, frauds=3)))
    assert [item.data for item in first.records] == [item.data for item in again.records]
    assert not {item.tx_id for item in first.records if item.tx_id} & {item.tx_id for item in other.records if item.tx_id}


def test_every_record_is_one_that_ingestion_takes_in_order_of_time_within_the_days() -> None:
    shop = simulate_shop(OPTIONS)
    times = []
    for item in shop.records:
        if item.tx_id is None:
            times.append(storefront_event_of(object_of(item.data), ORIGIN, NOW).occurred_at)
        else:
            transaction = transaction_of(object_of(item.data), ORIGIN, NOW)
            assert transaction.tx_id == item.tx_id and transaction.source_wallet_id == item.key
            times.append(transaction.occurred_at)
    assert times == sorted(times)
    assert OPTIONS.start <= times[0] and times[-1] < OPTIONS.start + timedelta(days=OPTIONS.days, hours=3)


def test_visits_lose_visitors_on_the_way_and_each_order_has_its_payment() -> None:
    shop = simulate_shop(OPTIONS)
    steps = Counter(item.row["event"] for item in shop.records)
    funnel = [steps[name] for name in ("session_started", "product_added", "checkout_started")]
    assert funnel == sorted(funnel, reverse=True) and steps["payment"] == steps["payment_attempted"] > steps["order_placed"] > 0
    settled = {item.tx_id for item in shop.records if item.row.get("status") == "settled"}
    assert {item.row["tx_id"] for item in shop.records if item.row["event"] == "order_placed"} == settled


def test_the_shops_rules_find_each_pattern_and_hardly_anybody_else() -> None:
    shop, engine = simulate_shop(OPTIONS), RuleEngine(read_policy("shop"))
    said: dict[str, set[str]] = {}
    for item in shop.records:
        if item.tx_id is not None:
            for hit in engine.judge(rule_row(transaction_of(object_of(item.data), ORIGIN, NOW), NOW)):
                said.setdefault(hit.wallet_id, set()).add(hit.rule)
    assert Counter(shop.truth.values()) == dict.fromkeys(PATTERNS, 3)
    signs = {"account_takeover": "new_device"}
    assert all(signs.get(pattern, pattern) in said.get(wallet, ()) for wallet, pattern in shop.truth.items())
    assert len(said.keys() - shop.truth.keys()) <= 4


def test_one_command_writes_the_sample_file_with_every_record_and_the_truth_apart(tmp_path: Path) -> None:
    shop = simulate_shop(ShopOptions(sessions=200, seed=3))
    asked = ["simulate", "--shape", "shop", "--count", "200", "--seed", "3", "--out", str(tmp_path / "sample_events.csv"), "--json"]
    assert run(asked) == 0
    with (tmp_path / "sample_events.labels.csv").open(newline="", encoding="utf-8") as stream:
        assert {row["wallet_id"]: row["pattern"] for row in csv.DictReader(stream)} == shop.truth
    with (tmp_path / "sample_events.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["event"] for row in rows] == [item.row["event"] for item in shop.records]
    assert all(row["occurred_at"].endswith("Z") and row["customer_id"] for row in rows)


@pytest.mark.parametrize("wrong", [{"sessions": 9}, {"days": 0}, {"frauds": -1}, {"start": datetime(2026, 1, 1)}])
def test_options_that_make_no_shop_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected ten visits"):
        ShopOptions(**wrong)  # type: ignore[arg-type]
