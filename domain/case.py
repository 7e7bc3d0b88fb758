"""The case aggregate: from an alert to a verdict. One alert per wallet and reason is open at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum

from domain import values
from domain.commands import AssignCase, CaseCommand, CloseCase, OpenCase, RaiseAlert, ReachVerdict
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


class CaseStatus(StrEnum):
    """alerted: nobody has looked. open: someone works on it. decided: a verdict stands. closed: work has ended."""

    ALERTED = "alerted"
    OPEN = "open"
    DECIDED = "decided"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Case:
    """A case's state as far as decisions need it."""

    case_id: str
    wallet_id: str
    reason: AlertReason
    status: CaseStatus
    last_tx_id: str


def case_id(wallet_id: str, reason: AlertReason, tx_id: str) -> str:
    """The id of the case that an alert allocates: the same facts always give the same id (16 hexadecimal digits)."""
    return hashlib.blake2b(f"{wallet_id}\n{reason}\n{tx_id}".encode(), digest_size=8).hexdigest()


def decide(case: Case | None, command: CaseCommand) -> list[CaseEvent]:
    """The events that `command` gives on `case` (for `RaiseAlert` the open one of that wallet and
    reason, else the closed one that this very request raised before, if any).

    Raises:
        CommandRefused: `unknown_case`, `case_closed`, `already_open`, `no_verdict` or `unknown_verdict`.
        InvalidValue: an id, a score or a text breaks its rule.
    """
    if isinstance(command, RaiseAlert):
        return _raise_alert(case, command)
    if case is None:
        raise CommandRefused("unknown_case", f"no case {command.case_id[:40]!r}")
    if case.status is CaseStatus.CLOSED:
        raise CommandRefused("case_closed", f"case {case.case_id} is closed")
    values.text("actor", command.actor)
    match command:
        case OpenCase():
            if case.status is not CaseStatus.ALERTED:
                raise CommandRefused("already_open", f"case {case.case_id} is {case.status} already")
            return [CaseOpened(case.case_id, case.wallet_id, command.actor, command.known_at)]
        case AssignCase():
            assignee = values.identifier("assignee", command.assignee)
            return [CaseAssigned(case.case_id, assignee, command.actor, command.known_at)]
        case ReachVerdict():
            if command.verdict not in (Verdict.FRAUD, Verdict.NOT_FRAUD, Verdict.INCONCLUSIVE):
                raise CommandRefused("unknown_verdict", f"expected fraud, not_fraud or inconclusive, found {command.verdict[:40]!r}")
            reason = values.text("reason", command.reason)
            verdict = Verdict(command.verdict)
            return [VerdictReached(case.case_id, case.wallet_id, verdict, reason, command.actor, command.known_at)]
        case CloseCase():
            if case.status is not CaseStatus.DECIDED:
                raise CommandRefused("no_verdict", f"case {case.case_id} has no verdict yet")
            return [CaseClosed(case.case_id, values.text("reason", command.reason), command.actor, command.known_at)]


def evolve(case: Case | None, event: CaseEvent) -> Case:
    """The state after `event`; a case begins with `AlertRaised`.

    Raises:
        InvalidValue: an event of a case that was never alerted: the log is corrupt.
    """
    if isinstance(event, AlertRaised):
        return Case(event.case_id, event.wallet_id, event.reason, CaseStatus.ALERTED, event.tx_id)
    if case is None:
        raise InvalidValue("case_id", f"{type(event).__name__} of case {event.case_id}, which no AlertRaised allocated")
    match event:
        case AlertExtended():
            return replace(case, last_tx_id=event.tx_id)
        case CaseOpened():
            return replace(case, status=CaseStatus.OPEN)
        case CaseAssigned():
            return case
        case VerdictReached():
            return replace(case, status=CaseStatus.DECIDED)
        case CaseClosed():
            return replace(case, status=CaseStatus.CLOSED)


def _raise_alert(case: Case | None, command: RaiseAlert) -> list[CaseEvent]:
    values.wallet_id(command.wallet_id)
    if not 0.0 <= command.score <= 1.0:
        raise InvalidValue("score", f"expected a number in [0, 1], found {command.score}")
    if command.reason not in (AlertReason.SCORE, AlertReason.FROZEN_WALLET_MOVED, AlertReason.RULE):
        raise InvalidValue("reason", f"expected a known reason, found {command.reason[:40]!r}")
    reason = AlertReason(command.reason)
    if (reason is AlertReason.RULE) != bool(command.rules and command.policy):
        raise InvalidValue("rules", "expected the rules that spoke and their policy where the reason is rule, and nowhere else")
    by_rule = [values.text(name, value) if value else None for name, value in (("rules", command.rules), ("policy", command.policy))]
    allocated = case_id(command.wallet_id, reason, values.identifier("tx_id", command.tx_id))
    if case is None or (case.status is CaseStatus.CLOSED and case.case_id != allocated):
        return [
            AlertRaised(
                allocated,
                command.wallet_id,
                reason,
                command.score,
                command.threshold,
                command.tx_id,
                command.tx_seq,
                values.text("explanation", command.explanation),
                values.text("model_version", command.model_version),
                command.known_at,
                *by_rule,
            )
        ]
    # The same request again, after its answer was lost; the case may even be closed by now.
    if case.last_tx_id == command.tx_id or case.status is CaseStatus.CLOSED:
        return []
    return [AlertExtended(case.case_id, case.wallet_id, command.score, command.tx_id, command.tx_seq, command.known_at, *by_rule)]
