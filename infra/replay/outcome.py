"""What a policy would have done, and what that is worth: alerts held against labels, value stopped in time or for nothing.

A policy's alerts are decided by the case aggregate, as live. Nobody closes a case in a replay, so a wallet is alerted once a reason.
Whoever acts on an alert does so `react` after the transaction that raised it; from then on every settled transaction of that wallet counts
as stopped. Amounts are added up by asset; over assets only in a quote asset, each at its price as of the transaction.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from domain.case import Case, decide, evolve
from domain.commands import RaiseAlert
from domain.events import AlertExtended, AlertRaised, AlertReason, CaseEvent
from domain.policy import Policy
from domain.rules import Hit, RuleEngine
from domain.values import EPOCH
from infra.replay.prices import MONEY, PriceBook, money
from infra.rule_alerts import rule_requests
from ml.alerting import score_requests
from ml.policy import RunningThreshold

FRAUD, HONEST, UNKNOWN = "fraud", "honest", "unknown"
BUCKETS = 60  # of alerts over time
_US_PER_H = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Moved:
    """A settled transaction that matters for what is stopped: its place in the batch, who takes part, how much, and what is true of it."""

    index: int
    parties: tuple[str, ...]
    amount: Decimal
    asset: str
    at_us: int
    truth: str


class Truth:
    """What labels say of wallets and transactions: True is illicit."""

    def __init__(self, wallets: Mapping[str, bool], transactions: Mapping[str, bool]) -> None:
        self.wallets, self.transactions = dict(wallets), dict(transactions)
        self._illicit_wallets = pa.array(sorted(name for name, bad in wallets.items() if bad), pa.string())
        self._illicit_transactions = pa.array(sorted(name for name, bad in transactions.items() if bad), pa.string())

    def of_alert(self, wallet_id: str, tx_id: str) -> str:
        """What an alert on a wallet, raised by a transaction, was on: by the wallet's label, else the transaction's."""
        return _said(self.wallets.get(wallet_id, self.transactions.get(tx_id)))

    def moved(self, table: pa.Table, wallets: set[str]) -> list[Moved]:
        """The settled transactions that are fraud, or in which one of `wallets` takes part.

        Args:
            table: columns tx_id, status, source_wallet_id, target_wallet_id, amount, asset, occurred_at.
        """
        named = pa.array(sorted(wallets), pa.string())
        is_meant = pc.is_in(table["tx_id"], value_set=self._illicit_transactions)
        for side in ("source_wallet_id", "target_wallet_id"):
            is_meant = pc.or_(is_meant, pc.is_in(table[side], value_set=self._illicit_wallets))
            if len(named):
                is_meant = pc.or_(is_meant, pc.is_in(table[side], value_set=named))
        places = np.flatnonzero(np.asarray(pc.and_(is_meant, pc.equal(table["status"], "settled"))))
        columns = ["tx_id", "source_wallet_id", "target_wallet_id", "amount", "asset"]
        rows = table.select(columns).take(pa.array(places)).to_pylist()
        times = table["occurred_at"].cast(pa.int64()).to_numpy()[places].tolist()
        found = []
        for index, row, at_us in zip(places.tolist(), rows, times, strict=True):
            parties = tuple({row[side]: None for side in ("source_wallet_id", "target_wallet_id") if row[side] is not None})
            found.append(Moved(index, parties, row["amount"], row["asset"], at_us, self._of_transaction(row["tx_id"], parties)))
        return found

    def _of_transaction(self, tx_id: str, parties: tuple[str, ...]) -> str:
        if (known := self.transactions.get(tx_id)) is not None:
            return _said(known)
        labels = [self.wallets.get(party) for party in parties]
        if any(labels):
            return FRAUD
        return HONEST if labels and None not in labels else UNKNOWN


def _said(is_illicit: bool | None) -> str:
    return UNKNOWN if is_illicit is None else FRAUD if is_illicit else HONEST


@dataclass(slots=True)
class Value:
    """Amounts by asset, and their sum in the quote asset; `unpriced` transactions had no price and are in no sum."""

    by_asset: dict[str, Decimal] = field(default_factory=dict)
    transactions: int = 0
    in_quote: Decimal = Decimal(0)
    unpriced: int = 0

    def add(self, moved: Moved, prices: PriceBook) -> None:
        """Count a transaction."""
        self.by_asset[moved.asset] = MONEY.add(self.by_asset.get(moved.asset, Decimal(0)), moved.amount)
        self.transactions += 1
        worth = prices.value(moved.amount, moved.asset, moved.at_us)
        if worth is None:
            self.unpriced += 1
        else:
            self.in_quote = MONEY.add(self.in_quote, worth)

    def as_json(self) -> dict[str, Any]:
        """Plain values; amounts as exact text."""
        by_asset = {asset: _plain(amount) for asset, amount in sorted(self.by_asset.items())}
        quote = _plain(self.in_quote) if self.transactions > self.unpriced else None
        return {"transactions": self.transactions, "by_asset": by_asset, "in_quote": quote, "unpriced": self.unpriced}


class Variant:
    """One policy over a replay, with one model's scores or none.

    Args:
        title: names it in reports.
        react_us: from a transaction to what is done about its alert, in microseconds.
        start_us, end_us: the replay's span, for alerts over time.
    """

    def __init__(
        self,
        title: str,
        policy: Policy,
        model_version: str | None,
        truth: Truth,
        prices: PriceBook,
        react_us: int,
        start_us: int,
        end_us: int,
    ) -> None:
        self.title, self.policy, self.model_version = title, policy, model_version
        self._truth, self._prices, self._react_us = truth, prices, react_us
        self._start_us, self._step_us = start_us, max(1, (end_us - start_us) // BUCKETS + 1)
        self._engine = RuleEngine(policy) if policy.rules else None
        self._threshold = RunningThreshold(policy.alerts)
        self._now_us = start_us
        self._open: dict[tuple[str, AlertReason], Case] = {}
        self._acted_at: dict[str, int] = {}
        self._raised: Counter[str] = Counter()
        self._extended = 0
        self._by_truth: Counter[str] = Counter()
        self._by_rule: Counter[str] = Counter()
        self._over_time: dict[str, list[int]] = {truth: [0] * BUCKETS for truth in (FRAUD, HONEST, UNKNOWN)}
        self._first_seen: dict[str, int] = {}
        self._hours: list[float] = []
        self._caught: set[str] = set()
        self._value: dict[str, Value] = defaultdict(Value)

    @property
    def has_rules(self) -> bool:
        return self._engine is not None

    @property
    def is_active(self) -> bool:
        """Whether it can raise an alert at all."""
        return self.has_rules or self.model_version is not None

    def observe(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Let its rules know of what came before the replay."""
        if self._engine is not None:
            for row in rows:
                self._engine.observe(row)

    def ruled(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, list[Hit]]]:
        """What its rules say of the next transactions, by their place; those of which they say something."""
        if self._engine is None:
            return []
        judge = self._engine.judge
        return [(index, hits) for index, row in enumerate(rows) if (hits := judge(row))]

    def take(
        self, table: pa.Table, hits: Sequence[tuple[int, list[Hit]]], scored: Sequence[Mapping[str, Any]] | None
    ) -> list[tuple[CaseEvent, int]]:
        """Take transactions in, in their order; returns the case events, each with the seq of its transaction.

        Args:
            table: columns as `Truth.moved`, and `_seq`.
            hits: what its rules said of them.
            scored: what its model said of each, as `ml.scorer.scored_rows`; none without a model.
        """
        # Time is the latest that was reached: what comes late is known when it comes, and nobody could have acted before.
        reached = np.maximum.accumulate(np.append(self._now_us, np.asarray(table["occurred_at"].cast(pa.int64()))))[1:]
        self._now_us = int(reached[-1]) if len(reached) else self._now_us
        requests = self._requests(table, reached, hits, scored)
        moved = self._truth.moved(table, self._acted_on(requests))
        seqs = table["_seq"].to_numpy()
        events: list[tuple[CaseEvent, int]] = []
        place = 0
        for one in moved:
            while place < len(requests) and requests[place][0] <= one.index:
                events += self._raise(*requests[place], int(seqs[requests[place][0]]))
                place += 1
            self._count(one, int(reached[one.index]))
        for request in requests[place:]:
            events += self._raise(*request, int(seqs[request[0]]))
        return events

    def as_json(self) -> dict[str, Any]:
        """What came of it, as plain values."""
        true, false, unknown = (self._by_truth[truth] for truth in (FRAUD, HONEST, UNKNOWN))
        seen = len(self._first_seen)
        return {
            "variant": self.title, "policy": self.policy.title, "model": self.model_version,
            "alerts": sum(self._raised.values()), "by_reason": dict(sorted(self._raised.items())),
            "by_rule": dict(sorted(self._by_rule.items())), "extended": self._extended,
            "true_alerts": true, "false_alarms": false, "alerts_without_label": unknown, "precision": _share(true, true + false),
            "fraud_wallets": seen, "fraud_wallets_alerted": len(self._caught), "recall": _share(len(self._caught), seen),
            "median_hours_to_alert": round(median(self._hours), 3) if self._hours else None,
            "at_stake": self._value["at_stake"].as_json(), "prevented": self._value[FRAUD].as_json(),
            "stopped_for_nothing": self._value[HONEST].as_json(), "stopped_without_label": self._value[UNKNOWN].as_json(),
            "over_time": self._over_time,
        }  # fmt: skip

    def _requests(
        self,
        table: pa.Table,
        reached: NDArray[np.int64],
        hits: Sequence[tuple[int, list[Hit]]],
        scored: Sequence[Mapping[str, Any]] | None,
    ) -> list[tuple[int, RaiseAlert, int]]:
        """(place in the batch, request, when it became known in microseconds), by place."""
        found: list[tuple[int, RaiseAlert, int]] = []
        if scored is not None:
            for index, row in enumerate(scored):
                threshold = self._threshold.next(row["score"])
                if row["score"] >= threshold:
                    at_us = int(reached[index])
                    at = EPOCH + timedelta(microseconds=at_us)
                    found += [(index, request, at_us) for request in score_requests(row, threshold, at)]
        if hits:
            tx_ids, seqs = table["tx_id"], table["_seq"].to_numpy()
            for index, spoken in hits:
                at_us = int(reached[index])
                asked = rule_requests(self.policy, spoken, tx_ids[index].as_py(), int(seqs[index]), at_us // 1_000)
                found += [(index, request, at_us) for request in asked]
        return sorted(found, key=lambda one: one[0])

    def _acted_on(self, requests: Sequence[tuple[int, RaiseAlert, int]]) -> set[str]:
        return self._acted_at.keys() | {request.wallet_id for _, request, _ in requests}

    def _raise(self, index: int, request: RaiseAlert, at_us: int, seq: int) -> list[tuple[CaseEvent, int]]:
        key = (request.wallet_id, AlertReason(request.reason))
        events = decide(self._open.get(key), request)
        for event in events:
            self._open[key] = evolve(self._open.get(key), event)
            if isinstance(event, AlertExtended):
                self._extended += 1
            if isinstance(event, AlertRaised):
                self._note(event, at_us)
        return [(event, seq) for event in events]

    def _note(self, alert: AlertRaised, at_us: int) -> None:
        truth = self._truth.of_alert(alert.wallet_id, alert.tx_id)
        self._raised[alert.reason.value] += 1
        self._by_truth[truth] += 1
        self._by_rule.update(alert.rules.split(",") if alert.rules else ())
        self._over_time[truth][min(max(0, at_us - self._start_us) // self._step_us, BUCKETS - 1)] += 1
        if alert.wallet_id in self._acted_at:
            return
        self._acted_at[alert.wallet_id] = at_us + self._react_us
        if self._truth.wallets.get(alert.wallet_id):
            self._caught.add(alert.wallet_id)
            self._hours.append(max(0, at_us - self._first_seen.setdefault(alert.wallet_id, at_us)) / _US_PER_H)

    def _count(self, moved: Moved, now_us: int) -> None:
        for party in moved.parties:
            if self._truth.wallets.get(party):
                self._first_seen.setdefault(party, now_us)
        if moved.truth == FRAUD:
            self._value["at_stake"].add(moved, self._prices)
        if any(self._acted_at.get(party, now_us + 1) <= now_us for party in moved.parties):
            self._value[moved.truth].add(moved, self._prices)


def _plain(amount: Decimal) -> str:
    return format(money(amount).normalize(MONEY), "f")


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
