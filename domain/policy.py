"""The policy: what becomes an alert, as data that a person writes and the log keeps.

Two parts: how many of the scores people can look at (`alerts`), and rules over single transactions and what a wallet did just before
(`rules`). A rule's conditions all hold, or it does not speak. Nothing here reads a file or a clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from domain.errors import TidemarkError
from domain.events import TransactionKind, TransactionStatus
from domain.values import EPOCH

TEXT_FIELDS = (
    "network", "kind", "status", "source_wallet_id", "target_wallet_id", "asset", "payment.merchant_category", "payment.location",
    "payment.country", "payment.payment_method", "payment.device_id",
)  # fmt: skip
"""Fields of a transaction that rules may name, beside its amount and its time."""
SIDES = ("source_wallet_id", "target_wallet_id")
MOST_RULES = 200
MOST_WITHIN_S = 31 * 86_400
MOST_COUNT = 10_000
QUIET_S = 3_600

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_UNWRITABLE = re.compile(r"[\ud800-\udfff]")
_DURATION = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_ENUMS: Mapping[str, tuple[str, ...]] = {
    "kind": tuple(kind.value for kind in TransactionKind if kind is not TransactionKind.UNKNOWN),
    "status": tuple(status.value for status in TransactionStatus if status is not TransactionStatus.UNKNOWN),
}


class PolicyError(TidemarkError):
    """A policy has mistakes; `mistakes` names each by its place."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = tuple(mistakes)


class PolicyReplaced(TidemarkError):
    """Another policy holds now. Not a fault: whoever keeps the worker starts it again."""


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """Which scores become alerts.

    budget: the share of transactions that people can look at; floor: no score below it alerts; window: how many of the last scores the
    threshold is taken from; warm_up: how many must have come before the first alert.
    """

    budget: float = 0.01
    floor: float = 0.5
    window: int = 20_000
    warm_up: int = 500


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions that all hold for a transaction, and for what else its `per` did within the time before it.

    Attributes:
        name: what alerts and reports call it.
        says: a sentence for people; `{field}`, `{amount}`, `{count}` are filled in.
        accuses: the side whose wallet is to be looked at.
        where: field → values, one of which the transaction has; transactions that differ are not counted at all.
        amount_at_least, amount_at_most: bounds of the amount, in units of the asset that `where` must name then.
        per: the field whose value the rest is counted by.
        within_s: seconds before the transaction that count, by the time it occurred; the transaction itself counts too.
        count_at_least: transactions in that time.
        share_of, share_at_least: field → values, and the share of those in that time that have one of them.
        distinct, distinct_at_least: a field, and how many values of it there are in that time.
        sum_at_least: the amount in all, in that time.
        new: a field whose value this `per` never had before.
        changed: a field whose value is another than the last one in that time.
        after: so many transactions of this `per` must have come before.
        quiet_s: seconds for which the rule says nothing more of a wallet that it has spoken of; 0 says it each time.
    """

    name: str
    says: str
    accuses: str
    where: Mapping[str, tuple[str, ...]]
    amount_at_least: Decimal | None = None
    amount_at_most: Decimal | None = None
    per: str | None = None
    within_s: int | None = None
    count_at_least: int | None = None
    share_of: Mapping[str, tuple[str, ...]] | None = None
    share_at_least: float | None = None
    distinct: str | None = None
    distinct_at_least: int | None = None
    sum_at_least: Decimal | None = None
    new: str | None = None
    changed: str | None = None
    after: int = 0
    quiet_s: int = QUIET_S


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy. `version` is the author's own and grows with each change."""

    name: str
    version: int
    alerts: AlertPolicy
    rules: tuple[Rule, ...]

    @property
    def title(self) -> str:
        """What alerts are marked with: name and version."""
        return f"{self.name}@{self.version}"

    def to_json(self) -> str:
        """The policy as the text that `PolicyChanged` carries; the same policy gives the same text."""
        return json.dumps(_plain(asdict(self)), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """The policy in a `PolicyChanged`.

        Raises:
            PolicyError: it is none.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PolicyError([f"policy: expected JSON ({str(error)[:200]})"]) from None
        return parse_policy(value)


DEFAULT = Policy("default", 1, AlertPolicy(), ())
"""What holds where the log has no policy."""


@dataclass(frozen=True, slots=True)
class HeldPolicy:
    """A policy and since when it holds; what came before, its rules know and do not speak of."""

    policy: Policy
    since: datetime


NO_POLICY = HeldPolicy(DEFAULT, EPOCH)


def parse_policy(value: Any) -> Policy:
    """A policy from plain values, as a YAML or JSON file gives them.

    Raises:
        PolicyError: every mistake in it, each with its place.
    """
    reader = _Reader()
    top = reader.group("policy", value, {"name", "version", "alerts", "rules"})
    alerts = reader.group("alerts", top.get("alerts", {}), {field.name for field in fields(AlertPolicy)})
    found = top.get("rules", [])
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) > MOST_RULES:
        reader.wrong("rules", f"a list of at most {MOST_RULES} rules", found)
        found = []
    default = DEFAULT.alerts
    policy = Policy(
        reader.name("name", top.get("name")),
        reader.needed("version", top.get("version"), 1, 1 << 31),
        AlertPolicy(
            budget=reader.number("alerts.budget", alerts.get("budget", default.budget), 0.0, 1.0),
            floor=reader.number("alerts.floor", alerts.get("floor", default.floor), 0.0, 1.0),
            window=reader.needed("alerts.window", alerts.get("window", default.window), 100, 10_000_000),
            warm_up=reader.needed("alerts.warm_up", alerts.get("warm_up", default.warm_up), 1, 10_000_000),
        ),
        tuple(_rule(reader, f"rules[{at}]", item) for at, item in enumerate(found)),
    )
    names = [rule.name for rule in policy.rules]
    for name in sorted({name for name in names if names.count(name) > 1}):
        reader.mistakes.append(f"rules: expected each name once, found {name!r} {names.count(name)} times")
    if reader.mistakes:
        raise PolicyError(reader.mistakes)
    return policy


def _rule(reader: _Reader, at: str, value: Any) -> Rule:
    names = {field.name for field in fields(Rule)}
    item = reader.group(at, value, names | {"within", "quiet"})
    within, quiet = (_seconds(reader, at, item, name) for name in ("within", "quiet"))
    rule = Rule(
        name=reader.name(f"{at}.name", item.get("name")),
        says=reader.text(f"{at}.says", item.get("says")),
        accuses=reader.field(f"{at}.accuses", item.get("accuses", item.get("per") if item.get("per") in SIDES else SIDES[0]), SIDES) or "",
        where=reader.choices(f"{at}.where", {} if item.get("where") is None else item["where"]),
        amount_at_least=reader.decimal(f"{at}.amount_at_least", item.get("amount_at_least")),
        amount_at_most=reader.decimal(f"{at}.amount_at_most", item.get("amount_at_most")),
        per=reader.field(f"{at}.per", item.get("per"), TEXT_FIELDS),
        within_s=reader.whole(f"{at}.within", within, 1, MOST_WITHIN_S),
        count_at_least=reader.whole(f"{at}.count_at_least", item.get("count_at_least"), 1, MOST_COUNT),
        share_of=reader.choices(f"{at}.share_of", item["share_of"]) if item.get("share_of") is not None else None,
        share_at_least=reader.number(f"{at}.share_at_least", item["share_at_least"], 0.0, 1.0)
        if item.get("share_at_least") is not None
        else None,
        distinct=reader.field(f"{at}.distinct", item.get("distinct"), TEXT_FIELDS),
        distinct_at_least=reader.whole(f"{at}.distinct_at_least", item.get("distinct_at_least"), 1, MOST_COUNT),
        sum_at_least=reader.decimal(f"{at}.sum_at_least", item.get("sum_at_least")),
        new=reader.field(f"{at}.new", item.get("new"), TEXT_FIELDS),
        changed=reader.field(f"{at}.changed", item.get("changed"), TEXT_FIELDS),
        after=reader.whole(f"{at}.after", item.get("after", 0), 0, MOST_COUNT) or 0,
        quiet_s=QUIET_S if quiet is None else reader.needed(f"{at}.quiet", quiet, 0, MOST_WITHIN_S),
    )
    reader.mistakes += [f"{at}.{problem}" for problem in _contradictions(rule)]
    return rule


def _seconds(reader: _Reader, at: str, item: Mapping[str, Any], name: str) -> Any:
    """A time that a person writes as `10m` under its name, and the log as seconds under that with `_s`."""
    if name in item and f"{name}_s" in item:
        reader.mistakes.append(f"{at}.{name}: expected it or {name}_s, found both")
    return item.get(f"{name}_s") if f"{name}_s" in item else reader.duration(f"{at}.{name}", item.get(name))


def _contradictions(rule: Rule) -> list[str]:
    """What a rule's fields demand of each other."""
    counted = {
        "count_at_least": rule.count_at_least, "share_of": rule.share_of, "distinct": rule.distinct, "sum_at_least": rule.sum_at_least,
        "changed": rule.changed,
    }  # fmt: skip
    found = [f"{name}: expected per and within beside it" for name, value in counted.items() if value and not (rule.per and rule.within_s)]
    if rule.within_s and not any(counted.values()):
        found.append("within: expected something to count in that time beside it")
    if (rule.new or rule.after) and not rule.per:
        found.append(f"{'new' if rule.new else 'after'}: expected per beside it")
    for first, second in (("share_of", "share_at_least"), ("distinct", "distinct_at_least")):
        if (getattr(rule, first) is None) != (getattr(rule, second) is None):
            found.append(f"{first}: expected {second} with it, found one of them")
    amounts = [name for name in ("amount_at_least", "amount_at_most", "sum_at_least") if getattr(rule, name) is not None]
    if amounts and len(rule.where.get("asset", ())) != 1:
        found.append(f"{amounts[0]}: expected where to name one asset: an amount is one of something")
    # A count of one is reached by each transaction: it is no condition.
    others = [rule.share_of, rule.sum_at_least, rule.changed, rule.new, rule.where, rule.after, amounts]
    if not (any(others) or (rule.count_at_least or 0) > 1 or (rule.distinct_at_least or 0) > 1):
        found.append("name: expected a condition: this rule would speak of every transaction")
    return found


class _Reader:
    """Takes values by their place, and notes every mistake instead of stopping at the first."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []

    def wrong(self, at: str, expected: str, found: Any) -> None:
        self.mistakes.append(f"{at}: expected {expected}, found {'nothing' if found is None else _shown(found)}")

    def group(self, at: str, value: Any, known: set[str]) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self.wrong(at, "fields with values", value)
            return {}
        for name in value:
            if name not in known:
                self.mistakes.append(f"{at}: expected no field {_shown(name)}; there are {', '.join(sorted(known))}")
        return value

    def name(self, at: str, value: Any) -> str:
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            self.wrong(at, "lower-case letters, digits and _, at most 63", value)
            return ""
        return value

    def text(self, at: str, value: Any) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= 500 or _UNWRITABLE.search(value):
            self.wrong(at, "a sentence of at most 500 characters", value)
            return ""
        return value

    def field(self, at: str, value: Any, known: Sequence[str]) -> str | None:
        if value is not None and value not in known:
            self.wrong(at, f"one of {', '.join(known)}", value)
            return None
        return None if value is None else str(value)

    def choices(self, at: str, value: Any) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name, content in self.group(at, value, set(TEXT_FIELDS)).items():
            values = (content,) if isinstance(content, str) else content
            if not isinstance(values, Sequence) or not values or not all(isinstance(item, str) for item in values):
                self.wrong(f"{at}.{name}", "a text or a list of texts", content)
                continue
            for item in values:
                if name in _ENUMS and item not in _ENUMS[name]:
                    self.wrong(f"{at}.{name}", f"one of {', '.join(_ENUMS[name])}", item)
            found[name] = tuple(values)
        return found

    def whole(self, at: str, value: Any, least: int, most: int) -> int | None:
        return None if value is None else self.needed(at, value, least, most)

    def needed(self, at: str, value: Any, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            self.wrong(at, f"a whole number from {least} to {most}", value)
            return least
        return value

    def number(self, at: str, value: Any, least: float, most: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            self.wrong(at, f"a number from {least:g} to {most:g}", value)
            return least
        return float(value)

    def decimal(self, at: str, value: Any) -> Decimal | None:
        if value is None:
            return None
        try:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise InvalidOperation
            found = Decimal(str(value))
            if not found.is_finite() or found < 0:
                raise InvalidOperation
        except (InvalidOperation, ValueError):
            self.wrong(at, "an amount of zero or more", value)
            return None
        return found

    def duration(self, at: str, value: Any) -> int | None:
        if value is None:
            return None
        found = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            self.wrong(at, "a time as 90s, 10m, 2h or 7d", value)
            return None
        return int(found[1]) * _SECONDS[found[2]]


def _shown(found: Any) -> str:
    try:
        return repr(found)[:60]
    except ValueError:  # Python refuses to write a whole number of more than 4,300 digits
        return "a number of very many digits"


def _plain(value: Any) -> Any:
    """Values that JSON knows; fields of a rule that are not set are left out."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
