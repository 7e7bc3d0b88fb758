"""The case: from an alert to a verdict."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from domain import case
from domain.case import Case, CaseStatus
from domain.commands import AssignCase, CloseCase, OpenCase, ReachVerdict
from domain.errors import CommandRefused, InvalidValue
from domain.events import (
    AlertExtended,
    AlertRaised,
    AlertReason,
    CaseAssigned,
    CaseClosed,
    CaseEvent,
    CaseOpened,
    Verdict,
    VerdictReached,
)
from tests.unit.domain.facts import AT, TX, WALLET, alert

ID = case.case_id(WALLET, AlertReason.SCORE, TX)
RAISED = AlertRaised(ID, WALLET, AlertReason.SCORE, 0.97, 0.9, TX, 4, "many small payments in", "m1", AT)
OPENED = CaseOpened(ID, WALLET, "ann", AT)
REACHED = VerdictReached(ID, WALLET, Verdict.FRAUD, "mule", "ann", AT)
CLOSED = CaseClosed(ID, "reported", "ann", AT)
OPEN, CLOSE = OpenCase(ID, "ann", AT), CloseCase(ID, "reported", "ann", AT)
REACH = ReachVerdict(ID, "fraud", "mule", "ann", AT)


def given(*events: CaseEvent) -> Case | None:
    state: Case | None = None
    return reduce(case.evolve, events, state)


def test_an_alert_allocates_a_case_whose_id_follows_from_the_facts() -> None:
    assert case.decide(given(), alert()) == [RAISED]
    assert len(ID) == 16
    assert case.case_id(WALLET, AlertReason.FROZEN_WALLET_MOVED, TX) != ID


@pytest.mark.parametrize("events", [(RAISED,), (RAISED, OPENED), (RAISED, OPENED, REACHED)], ids=["alerted", "open", "decided"])
def test_a_later_transaction_joins_the_alert_until_it_is_closed(events: tuple[CaseEvent, ...]) -> None:
    found = case.decide(given(*events), alert(tx_id="card:tx2:0", tx_seq=9, score=0.99))
    assert found == [AlertExtended(ID, WALLET, 0.99, "card:tx2:0", 9, AT)]


def test_the_same_request_after_a_lost_answer_gives_nothing() -> None:
    assert case.decide(given(RAISED), alert()) == []
    joined = AlertExtended(ID, WALLET, 0.99, "card:tx2:0", 9, AT)
    assert case.decide(given(RAISED, joined), alert(tx_id="card:tx2:0")) == []


def test_after_the_close_an_alert_is_a_new_case() -> None:
    (event,) = case.decide(given(RAISED, REACHED, CLOSED), alert(tx_id="card:tx3:0"))
    assert isinstance(event, AlertRaised)
    assert event.case_id != ID


def test_the_request_that_raised_a_closed_case_reopens_nothing() -> None:
    assert case.decide(given(RAISED, REACHED, CLOSED), alert()) == []


def test_the_life_of_a_case() -> None:
    state = given()
    found: list[CaseEvent] = []
    for command in (alert(), OPEN, AssignCase(ID, "bob", "ann", AT), REACH, CLOSE):
        events = case.decide(state, command)
        state = reduce(case.evolve, events, state)
        found += events
    assert found == [RAISED, OPENED, CaseAssigned(ID, "bob", "ann", AT), REACHED, CLOSED]
    assert state is not None
    assert state.status is CaseStatus.CLOSED


@pytest.mark.parametrize(
    ("events", "command", "reason"),
    [
        ((), OPEN, "unknown_case"),
        ((RAISED, OPENED), OPEN, "already_open"),
        ((RAISED,), CLOSE, "no_verdict"),
        ((RAISED, OPENED), CLOSE, "no_verdict"),
        ((RAISED, REACHED, CLOSED), CLOSE, "case_closed"),
        ((RAISED, REACHED, CLOSED), REACH, "case_closed"),
        ((RAISED,), ReachVerdict(ID, "guilty", "r", "ann", AT), "unknown_verdict"),
        ((RAISED,), ReachVerdict(ID, "unknown", "r", "ann", AT), "unknown_verdict"),
    ],
)
def test_what_may_not_happen_is_refused_with_its_reason(events: tuple[CaseEvent, ...], command: Any, reason: str) -> None:
    with pytest.raises(CommandRefused) as caught:
        case.decide(given(*events), command)
    assert caught.value.reason == reason


def test_a_verdict_may_be_revised_until_the_close() -> None:
    revised = ReachVerdict(ID, "not_fraud", "known merchant", "bob", AT)
    assert case.decide(given(RAISED, REACHED), revised) == [VerdictReached(ID, WALLET, Verdict.NOT_FRAUD, "known merchant", "bob", AT)]


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (alert(wallet_id="nobody"), "wallet_id"),
        (alert(score=1.01), "score"),
        (alert(score=float("nan")), "score"),
        (alert(reason="unknown"), "reason"),
        (alert(reason="bribe"), "reason"),
        (alert(explanation="x" * 1025), "explanation"),
        (AssignCase(ID, "", "ann", AT), "assignee"),
        (ReachVerdict(ID, "fraud", "x" * 1025, "ann", AT), "reason"),
        (OpenCase(ID, "x" * 1025, AT), "actor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_that_cannot_be_is_refused(command: Any, field: str) -> None:
    state = None if hasattr(command, "score") else given(RAISED)
    with pytest.raises(InvalidValue) as caught:
        case.decide(state, command)
    assert caught.value.field == field


def test_an_event_of_a_case_that_nobody_raised_is_corruption() -> None:
    with pytest.raises(InvalidValue, match=f"CaseOpened of case {ID}, which no AlertRaised allocated"):
        case.evolve(None, OPENED)


def test_an_alert_by_rule_names_its_rules_and_one_by_score_none() -> None:
    by_rule = {"reason": AlertReason.RULE, "policy": "standard@1"}
    (raised,) = case.decide(given(), alert(rules="velocity,fan_in", **by_rule))
    assert isinstance(raised, AlertRaised) and (raised.reason, raised.rules, raised.policy) == ("rule", "velocity,fan_in", "standard@1")
    (joined,) = case.decide(given(raised), alert(rules="fan_in", tx_id="card:tx2:0", **by_rule))
    assert isinstance(joined, AlertExtended) and (joined.rules, joined.policy) == ("fan_in", "standard@1")
    for wrong in (alert(**by_rule), alert(rules="velocity", policy="p@1"), alert(rules="x" * 1_025, **by_rule)):
        with pytest.raises(InvalidValue, match="rules"):
            case.decide(given(), wrong)
