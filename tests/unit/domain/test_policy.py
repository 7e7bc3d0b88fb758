"""A policy is read whole or refused with every mistake in its place."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.policy import DEFAULT, AlertPolicy, Policy, PolicyError, parse_policy

RULE: dict[str, Any] = {"name": "velocity", "says": "{count} at once", "per": "source_wallet_id", "within": "10m", "count_at_least": 3}


def policy(*rules: dict[str, Any], **top: Any) -> dict[str, Any]:
    return {"name": "mine", "version": 2, "rules": list(rules), **top}


def mistakes(value: Any) -> str:
    with pytest.raises(PolicyError) as found:
        parse_policy(value)
    return "\n".join(found.value.mistakes)


def test_a_whole_policy_is_read_and_comes_back_from_its_text() -> None:
    rule = {
        **RULE,
        "where": {"kind": "payment", "asset": ["EUR"]},
        "amount_at_most": "2.50",
        "share_of": {"status": ["failed"]},
        "share_at_least": 0.5,
    }
    found = parse_policy(policy(rule, alerts={"budget": 0.02}))
    assert found.title == "mine@2" and found.alerts == AlertPolicy(budget=0.02)
    assert found.rules[0].within_s == 600 and found.rules[0].accuses == "source_wallet_id"
    assert found.rules[0].where == {"kind": ("payment",), "asset": ("EUR",)} and found.rules[0].amount_at_most == Decimal("2.50")
    assert Policy.from_json(found.to_json()) == found
    assert Policy.from_json(DEFAULT.to_json()) == DEFAULT


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "policy: expected fields with values, found nothing"),
        ([], "policy: expected fields"),
        ({"name": "x"}, "version: expected a whole number"),
        (policy(version="3"), "version: expected a whole number from 1"),
        (policy(version=True), "version: expected a whole number"),
        (policy(name="Mine"), "name: expected lower-case"),
        (policy(colour="red"), "policy: expected no field 'colour'"),
        (policy(alerts={"budget": 2}), "alerts.budget: expected a number from 0 to 1, found 2"),
        (policy(alerts={"bugdet": 0.1}), "alerts: expected no field 'bugdet'"),
        (policy(rules="x"), "rules: expected a list"),
        (policy(5), "rules[0]: expected fields with values"),
        (policy({**RULE, "per": "iban"}), "rules[0].per: expected one of network"),
        (policy({**RULE, "within": "soon"}), "rules[0].within: expected a time as 90s"),
        (policy({**RULE, "within": "40d"}), "rules[0].within: expected a whole number from 1 to"),
        (policy({**RULE, "within": None}), "rules[0].count_at_least: expected per and within"),
        (policy({**RULE, "count_at_least": None}), "rules[0].within: expected something to count"),
        (policy({**RULE, "where": {"kind": "theft"}}), "rules[0].where.kind: expected one of transfer"),
        (policy({**RULE, "where": {"colour": "red"}}), "rules[0].where: expected no field 'colour'"),
        (policy({**RULE, "amount_at_least": 5}), "rules[0].amount_at_least: expected where to name one asset"),
        (policy({**RULE, "where": {"asset": "EUR"}, "amount_at_least": -5}), "rules[0].amount_at_least: expected an amount"),
        (policy({**RULE, "where": {"asset": "EUR"}, "amount_at_least": "many"}), "rules[0].amount_at_least: expected an amount"),
        (policy({**RULE, "distinct": "payment.country"}), "rules[0].distinct: expected distinct_at_least with it"),
        (policy({"name": "a", "says": "b", "new": "payment.country"}), "rules[0].new: expected per beside it"),
        (policy({"name": "a", "says": "b"}), "rules[0].name: expected a condition"),
        (policy({**RULE, "accuses": "network"}), "rules[0].accuses: expected one of source_wallet_id"),
        (policy(alerts={"window": None}), "alerts.window: expected a whole number from 100 to 10000000, found nothing"),
        (policy(version=1 << 20000), "version: expected a whole number from 1 to 2147483648, found a number of very many digits"),
        (policy({**RULE, "where": {"asset": "EUR"}, "amount_at_least": 1 << 20000}), "rules[0].amount_at_least: expected an amount"),
        (policy({**RULE, "where": []}), "rules[0].where: expected fields with values, found []"),
        (policy({**RULE, "within_s": 5}), "rules[0].within: expected it or within_s, found both"),
        (policy({**RULE, "count_at_least": 1}), "rules[0].name: expected a condition"),
        (policy({**RULE, "says": "\ud800"}), "rules[0].says: expected a sentence"),
        (policy(RULE, RULE), "rules: expected each name once, found 'velocity' 2 times"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(value: Any, expected: str) -> None:
    assert expected in mistakes(value)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "{", "null"])
def test_a_text_of_the_log_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        Policy.from_json(text)


def test_every_mistake_is_named_at_once() -> None:
    found = mistakes(policy({**RULE, "per": "iban", "within": "soon"}, version=0, alerts={"floor": "high"}))
    assert len(found.splitlines()) >= 4


NAMES = st.sampled_from(["name", "version", "alerts", "rules", "says", "per", "where", "within", "new"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab0.", max_size=5)
VALUES = st.recursive(LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(NAMES, x, max_size=4), max_leaves=12)


@given(VALUES)
def test_any_values_are_a_policy_or_refused(value: Any) -> None:
    try:
        parse_policy(value)
    except PolicyError as error:
        assert error.mistakes


def test_a_rule_is_quiet_for_an_hour_unless_it_says_otherwise() -> None:
    plain, short, each = (parse_policy(policy({**RULE, **quiet})).rules[0] for quiet in ({}, {"quiet": "5m"}, {"quiet_s": 0}))
    assert (plain.quiet_s, short.quiet_s, each.quiet_s) == (3_600, 300, 0)
    assert "rules[0].quiet: expected a time" in mistakes(policy({**RULE, "quiet": "soon"}))
    assert "rules[0].quiet: expected it or quiet_s, found both" in mistakes(policy({**RULE, "quiet": "5m", "quiet_s": 1}))
