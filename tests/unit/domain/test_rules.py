"""What rules say of a stream, one transaction after the other; and that the order of equals, lateness and memory do not change it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import rules
from domain.policy import TEXT_FIELDS, parse_policy
from domain.rules import RuleEngine

MINUTE = 60_000_000


def engine(**rule: Any) -> RuleEngine:
    return RuleEngine(
        parse_policy({"name": "p", "version": 1, "rules": [{"name": "r", "says": "{count} of {amount}", "quiet_s": 0, **rule}]})
    )


def tx(minute: float = 0, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(TEXT_FIELDS)
    found |= {
        "network": "bank", "kind": "payment", "status": "settled", "source_wallet_id": "bank:a", "target_wallet_id": "bank:b",
        "asset": "EUR", "amount": Decimal(10), "occurred_us": round(minute * MINUTE),
    }  # fmt: skip
    for name in ("device_id", "country"):
        if name in fields:
            found[f"payment.{name}"] = fields.pop(name)
    return {**found, **fields}


def spoken(found: RuleEngine, *transactions: dict[str, Any]) -> list[bool]:
    return [bool(found.judge(transaction)) for transaction in transactions]


def test_velocity_counts_within_its_time_and_by_its_wallet() -> None:
    found = engine(per="source_wallet_id", within="10m", count_at_least=3)
    other = tx(1, source_wallet_id="bank:z")
    assert spoken(found, tx(0), tx(1), other, tx(2), tx(11.5), tx(11.9)) == [False, False, False, True, False, True]


def test_the_edge_of_the_time_counts() -> None:
    assert spoken(engine(per="source_wallet_id", within="10m", count_at_least=2), tx(0), tx(10)) == [False, True]
    assert spoken(engine(per="source_wallet_id", within="10m", count_at_least=2), tx(0), tx(10.1)) == [False, False]


def test_a_late_one_counts_as_of_the_latest_before_it() -> None:
    found = engine(per="source_wallet_id", within="10m", count_at_least=3)
    assert spoken(found, tx(100), tx(5), tx(101)) == [False, False, True]


def test_shares_are_of_what_counts() -> None:
    found = engine(per="source_wallet_id", within="1h", count_at_least=4, share_of={"status": ["failed", "declined"]}, share_at_least=0.5)
    assert spoken(found, tx(0, status="failed"), tx(1), tx(2), tx(3, status="declined"), tx(4)) == [False, False, False, True, False]


def test_distinct_values_leave_with_their_transactions() -> None:
    found = engine(per="target_wallet_id", within="10m", distinct="source_wallet_id", distinct_at_least=2)
    sources = [tx(minute, source_wallet_id=f"bank:{n}") for minute, n in ((0, 1), (1, 1), (2, 2), (30, 2))]
    assert spoken(found, *sources) == [False, False, True, False]


def test_sums_are_exact_and_of_one_asset() -> None:
    found = engine(per="source_wallet_id", within="1h", where={"asset": "EUR"}, sum_at_least="0.3")
    parts = [tx(n, amount=Decimal("0.1")) for n in range(3)]
    assert spoken(found, tx(0, asset="USD", amount=Decimal(9)), *parts) == [False, False, False, True]


def test_amounts_say_which_transactions_are_meant() -> None:
    found = engine(per="source_wallet_id", within="10m", where={"asset": "EUR"}, amount_at_most=2, count_at_least=2)
    assert spoken(found, tx(0, amount=Decimal(1)), tx(1, amount=Decimal(500)), tx(2, amount=Decimal(2))) == [False, False, True]
    alone = engine(where={"asset": "EUR"}, amount_at_least=100)
    assert spoken(alone, tx(amount=Decimal(99)), tx(amount=Decimal(100)), tx(amount=Decimal(100), asset="USD")) == [False, True, False]


def test_a_new_device_needs_a_history() -> None:
    found = engine(per="source_wallet_id", new="payment.device_id", after=2)
    devices = [tx(minute, device_id=device) for minute, device in enumerate(["x", "x", "y", "y", None])]
    assert spoken(found, *devices) == [False, False, True, False, False]


def test_what_was_seen_with_a_small_amount_is_not_new_with_a_large_one() -> None:
    found = engine(per="source_wallet_id", where={"asset": "EUR"}, amount_at_least=500, new="payment.device_id", after=3)
    small = [tx(n, device_id="x", amount=Decimal(20)) for n in range(5)]
    large = [tx(10, device_id="x", amount=Decimal(700)), tx(11, device_id="y", amount=Decimal(700))]
    assert spoken(found, *small, *large) == [False] * 6 + [True]


def test_a_share_that_is_just_reached_speaks() -> None:
    for share, failed, all_ in ((0.28, 7, 25), (0.56, 14, 25), (0.07, 7, 100)):
        found = engine(per="source_wallet_id", within="1h", share_of={"status": "failed"}, share_at_least=share, count_at_least=all_)
        stream = [tx(0, status="failed" if n < failed else "settled") for n in range(all_)]
        assert spoken(found, *stream)[-1], share


def test_sums_keep_the_last_digit_also_when_others_have_left() -> None:
    where = {"asset": "EUR"}
    big = engine(per="source_wallet_id", within="10s", where=where, sum_at_least="20000000000.000000000000000002")
    amount = Decimal("10000000000.000000000000000001")
    assert spoken(big, tx(0, amount=amount), tx(0, amount=amount)) == [False, True]
    small = engine(per="source_wallet_id", within="10s", where=where, sum_at_least="0.000000000000000006")
    parts = [tx(0, amount=Decimal(99999999999)), tx(5 / 60, amount=Decimal("4e-18")), tx(12 / 60, amount=Decimal("2e-18"))]
    assert spoken(small, *parts) == [True, True, True]
    above = engine(per="source_wallet_id", within="10s", where=where, sum_at_least="0.000000000000000007")
    assert spoken(above, *parts) == [True, True, False]
    (hit,) = engine(where=where, says="{amount}").judge(tx(amount=Decimal("12345678901.123456789012345678")))
    assert hit.says == "12345678901.123456789012345678"


def test_a_change_of_country_is_seen_within_its_time_alone() -> None:
    found = engine(per="source_wallet_id", within="2h", changed="payment.country")
    steps = [(0, "AT"), (10, "AT"), (20, "BR"), (400, "AT"), (410, None), (420, "BR")]
    found_at = spoken(found, *(tx(minute, country=country) for minute, country in steps))
    assert found_at == [False, False, True, False, False, True]


def test_a_side_that_is_not_named_accuses_nobody() -> None:
    found = engine(per="target_wallet_id", accuses="source_wallet_id", where={"network": "bank"}, within="1h", count_at_least=1)
    assert found.judge(tx(source_wallet_id=None)) == []
    assert found.judge(tx(target_wallet_id=None)) == []
    (hit,) = found.judge(tx())
    assert (hit.rule, hit.wallet_id) == ("r", "bank:a")


def test_the_sentence_is_filled_in_and_text_from_outside_stays_text() -> None:
    found = engine(says="{count}x {amount} {asset} {payment.country} {nothing} {", where={"kind": "payment"})
    (hit,) = found.judge(tx(country="{amount}", amount=Decimal("10.50")))
    assert hit.says == "1x 10.5 EUR {amount} {nothing} {"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MOST_KEYS", 2)
    monkeypatch.setattr(rules, "MOST_KEPT", 3)
    found = engine(per="source_wallet_id", within="1h", count_at_least=3, new="target_wallet_id")
    for n in range(50):
        found.judge(tx(n / 100, source_wallet_id=f"bank:{n % 5}", target_wallet_id=f"bank:t{n}"))
        found.judge(tx(n / 100, target_wallet_id=f"bank:t{n}"))
    (rule,) = found._rules
    assert len(rule._before) <= 2
    assert all(len(before.within or ()) <= 3 and len(before.known or ()) <= 3 for before in rule._before.values())


EVENTS = st.tuples(st.integers(0, 100), st.sampled_from("ab"), st.sampled_from(["settled", "failed"]), st.sampled_from("xyz"))


@given(st.lists(EVENTS, max_size=40))
def test_it_says_what_counting_anew_each_time_would_say(events: list[tuple[int, str, str, str]]) -> None:
    found = engine(
        per="source_wallet_id", within="10m", count_at_least=3, share_of={"status": "failed"}, share_at_least=0.4,
        distinct="target_wallet_id", distinct_at_least=2,
    )  # fmt: skip
    seen: dict[str, list[tuple[int, str, str]]] = {}
    for minute, source, status, target in events:
        mine = seen.setdefault(source, [])
        at = max(minute, max((item[0] for item in mine), default=0))
        mine.append((at, status, target))
        within = [item for item in mine if at - 10 <= item[0]]
        expected = (
            len(within) >= 3 and sum(item[1] == "failed" for item in within) >= 0.4 * len(within) and len({item[2] for item in within}) >= 2
        )
        assert (
            bool(found.judge(tx(minute, source_wallet_id=f"bank:{source}", status=status, target_wallet_id=f"bank:{target}"))) == expected
        )


def test_a_rule_that_spoke_of_a_wallet_is_quiet_about_it_for_a_while() -> None:
    found = engine(where={"network": "bank"}, quiet_s=600)
    a, b = (lambda minute, wallet=wallet: tx(minute, source_wallet_id=wallet) for wallet in ("bank:a", "bank:b"))
    assert spoken(found, a(0), b(1), a(9), b(10), a(10)) == [True, True, False, False, True]
    assert spoken(found, a(5), a(19), a(20)) == [False, False, True], "one that comes late counts as said already"
