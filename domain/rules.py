"""Rules over transactions in order of seq: what one says of each, from it and from what came before it.

The same code judges a stream, a file, and a Lambda's batch. Time is the transaction's own `occurred_at`; one that comes late counts as
of the latest before it of the same `per`, so that it changes nothing that was said already, and a replay says the same.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from domain.policy import Policy, Rule

MOST_KEPT = 10_000
"""Of one `per` and rule, transactions remembered within the rule's time, and values remembered for `new`."""
MOST_KEYS = 1_000_000
"""Of one rule, values of `per` remembered; the one that was quiet for longest is forgotten first."""

_Test = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule that spoke: of whom, and the sentence for people."""

    rule: str
    wallet_id: str
    says: str


@dataclass(slots=True)
class _Before:
    """What one `per` did: (time, has the share's property, value of `distinct`, amount) within the rule's time, in order of arrival."""

    within: deque[tuple[int, bool, str | None, Decimal]] = field(default_factory=deque)
    shares: int = 0
    values: Counter[str] = field(default_factory=Counter)
    amount: Decimal = Decimal(0)
    known: OrderedDict[str, None] = field(default_factory=OrderedDict)
    latest_us: int = 0
    last: tuple[int, str] | None = None
    count: int = 0


class RuleEngine:
    """Judges transactions one after the other. Not for several threads."""

    def __init__(self, policy: Policy) -> None:
        self._rules = [_Rule(rule) for rule in policy.rules]

    def judge(self, transaction: Mapping[str, Any]) -> list[Hit]:
        """What the rules say of the next transaction.

        Args:
            transaction: `TEXT_FIELDS` by name as text or none, `amount` as `Decimal`, and `occurred_us` in microseconds since 1970.
        """
        return [hit for rule in self._rules if (hit := rule.judge(transaction)) is not None]


class _Rule:
    """One rule with what it remembers."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._concerns = _having(rule.where)
        self._shares = _having(rule.share_of or {})
        self._within_us = (rule.within_s or 0) * 1_000_000
        self._before: OrderedDict[str, _Before] = OrderedDict()

    def judge(self, transaction: Mapping[str, Any]) -> Hit | None:
        rule = self._rule
        if not self._concerns(transaction):
            return None
        amount: Decimal = transaction["amount"]
        is_within_amount = (rule.amount_at_least is None or amount >= rule.amount_at_least) and (
            rule.amount_at_most is None or amount <= rule.amount_at_most
        )
        before = None
        speaks = is_within_amount
        if rule.per is not None:
            per = transaction[rule.per]
            if per is None:
                return None
            # Bounds of the amount say which transactions are meant, so others are not counted either.
            if not is_within_amount:
                return None
            before = self._of(per)
            speaks = self._counts(before, transaction, amount)
        wallet_id = transaction[rule.accuses]
        if not speaks or wallet_id is None:
            return None
        count = len(before.within) if before is not None and self._within_us else 1
        return Hit(rule.name, wallet_id, _filled(rule.says, transaction, count))

    def _of(self, per: str) -> _Before:
        found = self._before.pop(per, None)
        if found is None:
            found = _Before()
            if len(self._before) >= MOST_KEYS:
                self._before.popitem(last=False)
        self._before[per] = found
        return found

    def _counts(self, before: _Before, transaction: Mapping[str, Any], amount: Decimal) -> bool:
        """Take the transaction in, and tell whether everything that is counted is reached."""
        rule = self._rule
        at = before.latest_us = max(before.latest_us, transaction["occurred_us"])
        speaks = before.count >= rule.after
        before.count += 1
        if rule.new is not None:
            speaks &= _is_new(before, transaction[rule.new])
        if rule.changed is not None:
            value = transaction[rule.changed]
            last = before.last
            speaks &= value is not None and last is not None and value != last[1] and at - last[0] <= self._within_us
            if value is not None:
                before.last = (at, value)
        if not self._within_us:
            return speaks
        while before.within and (before.within[0][0] < at - self._within_us or len(before.within) >= MOST_KEPT):
            self._drop(before)
        has_share = rule.share_of is not None and self._shares(transaction)
        value = transaction[rule.distinct] if rule.distinct is not None else None
        before.within.append((at, has_share, value, amount))
        before.shares += has_share
        before.amount += amount
        if value is not None:
            before.values[value] += 1
        if rule.count_at_least is not None:
            speaks &= len(before.within) >= rule.count_at_least
        if rule.share_at_least is not None:
            speaks &= before.shares >= rule.share_at_least * len(before.within)
        if rule.distinct_at_least is not None:
            speaks &= len(before.values) >= rule.distinct_at_least
        if rule.sum_at_least is not None:
            speaks &= before.amount >= rule.sum_at_least
        return speaks

    @staticmethod
    def _drop(before: _Before) -> None:
        _, had_share, value, amount = before.within.popleft()
        before.shares -= had_share
        before.amount -= amount
        if value is not None:
            before.values[value] -= 1
            if not before.values[value]:
                del before.values[value]


def _is_new(before: _Before, value: str | None) -> bool:
    if value is None:
        return False
    is_new = value not in before.known
    before.known[value] = None
    before.known.move_to_end(value)
    if len(before.known) > MOST_KEPT:
        before.known.popitem(last=False)
    return is_new


def _having(wanted: Mapping[str, tuple[str, ...]]) -> _Test:
    """Whether a transaction has one of the values in each field."""
    tests = [(name, frozenset(values)) for name, values in wanted.items()]
    if not tests:
        return lambda transaction: True
    if len(tests) == 1:
        ((name, values),) = tests
        return lambda transaction: transaction[name] in values
    return lambda transaction: all(transaction[name] in values for name, values in tests)


class _Fields(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "{" + key + "}"


def _filled(says: str, transaction: Mapping[str, Any], count: int) -> str:
    """The sentence with its fields; text from outside goes in as it is, whoever shows it escapes it."""
    if "{" not in says:
        return says
    found = _Fields(count=str(count), amount=format(transaction["amount"].normalize(), "f"))
    found.update({name: str(value) for name, value in transaction.items() if value is not None and name not in ("amount", "occurred_us")})
    out, rest = [], says
    while rest:
        text, opened, rest = rest.partition("{")
        out.append(text)
        if opened:
            name, closed, after = rest.partition("}")
            if not closed:
                out.append("{" + rest)
                break
            out.append(found[name])
            rest = after
    return "".join(out)
