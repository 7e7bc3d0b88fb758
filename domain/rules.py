"""Rules over transactions in order of seq: what one says of each, from it and from what came before it.

The same code judges a stream, a file, and a Lambda's batch. Time is the transaction's own `occurred_at`; one that comes late counts as
of the latest before it of the same `per`, so that it changes nothing that was said already, and a replay says the same.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

from domain.policy import Policy, Rule

MOST_KEPT = 10_000
"""Of one `per` and rule, transactions remembered within the rule's time, and values remembered for `new`."""
MOST_KEYS = 200_000
"""Of one rule, values of `per` remembered, and wallets that it spoke of; the one of longest ago is forgotten first."""
_SUMS = Context(prec=60)  # 10,000 amounts of 38 digits, to the last of them

_Test = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule that spoke: of whom, and the sentence for people."""

    rule: str
    wallet_id: str
    says: str


@dataclass(slots=True)
class _Before:
    """What one `per` did: (time, has the share's property, value of `distinct`, amount) within the rule's time, in order of arrival.

    Each is made when it is first needed: most wallets of most rules need little.
    """

    within: deque[tuple[int, bool, str | None, Decimal]] | None = None
    shares: int = 0
    values: dict[str, int] | None = None
    amount: Decimal = Decimal(0)
    known: dict[str, None] | None = None
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
        return [hit for rule in self._rules if (hit := rule.judge(transaction, speaks=True)) is not None]

    def observe(self, transaction: Mapping[str, Any]) -> None:
        """Let the rules know of a transaction that nobody is told of: it counts, and quiets no rule."""
        for rule in self._rules:
            rule.judge(transaction, speaks=False)


def by_wallet(hits: Iterable[Hit]) -> dict[str, list[Hit]]:
    """What was said of each wallet, in the order of the policy."""
    found: dict[str, list[Hit]] = {}
    for hit in hits:
        found.setdefault(hit.wallet_id, []).append(hit)
    return found


class _Rule:
    """One rule with what it remembers."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._concerns = _having(rule.where)
        self._shares = _having(rule.share_of or {})
        self._within_us = (rule.within_s or 0) * 1_000_000
        counted = (rule.count_at_least, rule.share_of, rule.distinct, rule.sum_at_least)
        self._is_counting = bool(self._within_us) and any(item is not None for item in counted)
        self._before: OrderedDict[str, _Before] = OrderedDict()
        self._spoke: dict[str, int] = {}  # when it last spoke of a wallet, the one of longest ago first

    def judge(self, transaction: Mapping[str, Any], *, speaks: bool) -> Hit | None:
        rule = self._rule
        if not self._concerns(transaction):
            return None
        amount: Decimal = transaction["amount"]
        is_within_amount = (rule.amount_at_least is None or amount >= rule.amount_at_least) and (
            rule.amount_at_most is None or amount <= rule.amount_at_most
        )
        if rule.per is None:
            return self._hit(transaction, 1) if is_within_amount and speaks else None
        per = transaction[rule.per]
        # Bounds of the amount say which transactions are meant, so others are not counted; but what was seen once is no longer new.
        if per is None or not (is_within_amount or rule.new is not None):
            return None
        before = self._of(per)
        if not is_within_amount:
            before.count += 1
            if rule.new is not None:
                _is_new(before, transaction[rule.new])
            return None
        if not self._counts(before, transaction, amount) or not speaks:
            return None
        return self._hit(transaction, len(before.within) if before.within is not None else 1)

    def _hit(self, transaction: Mapping[str, Any], count: int) -> Hit | None:
        wallet_id = transaction[self._rule.accuses]
        if wallet_id is None or (self._rule.quiet_s and self._is_quiet(wallet_id, transaction["occurred_us"])):
            return None
        return Hit(self._rule.name, wallet_id, _filled(self._rule.says, transaction, count))

    def _is_quiet(self, wallet_id: str, at: int) -> bool:
        """Whether the rule spoke of the wallet a short while before; else it is taken to speak now."""
        spoke = self._spoke.get(wallet_id)
        if spoke is not None and abs(at - spoke) < self._rule.quiet_s * 1_000_000:
            return True
        self._spoke.pop(wallet_id, None)
        self._spoke[wallet_id] = at
        if len(self._spoke) > MOST_KEYS:
            del self._spoke[next(iter(self._spoke))]
        return False

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
        if not self._is_counting:
            return speaks
        within = before.within = before.within if before.within is not None else deque()
        while within and (within[0][0] < at - self._within_us or len(within) >= MOST_KEPT):
            _drop(before, within.popleft())
        has_share = rule.share_of is not None and self._shares(transaction)
        value = transaction[rule.distinct] if rule.distinct is not None else None
        within.append((at, has_share, value, amount))
        before.shares += has_share
        if rule.sum_at_least is not None:
            before.amount = _SUMS.add(before.amount, amount)
        if value is not None:
            values = before.values = before.values if before.values is not None else {}
            values[value] = values.get(value, 0) + 1
        if rule.count_at_least is not None:
            speaks &= len(within) >= rule.count_at_least
        if rule.share_at_least is not None:
            speaks &= before.shares / len(within) >= rule.share_at_least  # a division is rounded right, a product is not
        if rule.distinct_at_least is not None:
            speaks &= len(before.values or ()) >= rule.distinct_at_least
        if rule.sum_at_least is not None:
            speaks &= before.amount >= rule.sum_at_least
        return speaks


def _drop(before: _Before, item: tuple[int, bool, str | None, Decimal]) -> None:
    _, had_share, value, amount = item
    before.shares -= had_share
    if before.amount:
        before.amount = _SUMS.subtract(before.amount, amount)
    if value is not None and before.values is not None:
        before.values[value] -= 1
        if not before.values[value]:
            del before.values[value]


def _is_new(before: _Before, value: str | None) -> bool:
    if value is None:
        return False
    known = before.known = before.known if before.known is not None else {}
    is_new = known.pop(value, "") is not None
    known[value] = None  # last in order: the one not seen for longest is forgotten first
    if len(known) > MOST_KEPT:
        del known[next(iter(known))]
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
    found = _Fields(count=str(count), amount=format(transaction["amount"].normalize(_SUMS), "f"))
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
