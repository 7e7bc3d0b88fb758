"""The policy's rules over a Kinesis stream: what the worker `rules` says of the log, said before the log has it.

One shard's records are judged in their order, by the same rules (`domain.rules`). What the rules remember is the stream's own past: an
environment that starts reads the shard again from as long before as the rules look back, one that was passed over reads on from where it
stood. Where that takes longer than a call may, the call fails, comes again, and goes on reading from there.
Everything here may happen twice: an alert has an id that follows from its facts, and who reads alerts knows it by that.

Rules count within a shard. A producer that puts a wallet's transactions into one shard (its id as partition key) gives rules `per` that
wallet all they need; those `per` the other side see only the shard's share, and are for the worker.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from domain.events import Origin, TransactionRecorded
from domain.policy import HeldPolicy, Policy
from domain.rules import Hit, RuleEngine, by_wallet
from domain.values import EPOCH, MAX_TEXT_LENGTH
from infra.lambdas.json_fields import Refused, object_of
from infra.lambdas.kinesis_ingestion import KinesisRecord
from infra.lambdas.metrics import metrics_line
from infra.lambdas.storefront_json import KIND
from infra.lambdas.transaction_json import MAPPING, transaction_of
from projections.errors import StoreUnavailable

FRAUD_RULES = "fraud-rules"
LOOKS_BACK_S = 86_400
"""How far back a fresh environment reads for what rules know without a time of their own (`new`, `after`): a day of the stream."""
READS_S = 40.0
"""How long one call may read the past: below the function's time limit, with the batch itself to come."""
_REMEMBERED = 50_000  # transactions of a shard known to be judged, so that a producer's second try counts once


class Past(Protocol):
    """The stream's own past."""

    def between(self, stream: str, shard: str, start: datetime | str, before: str) -> Iterator[KinesisRecord]:
        """Records of a shard from a time on, or from behind a sequence number, up to another, which is not in it.

        Raises:
            StoreUnavailable: the stream does not answer.
        """


class Places(Protocol):
    """How far each shard was judged, by whichever environment."""

    def load(self, stream: str, shard: str) -> str | None: ...

    def save(self, stream: str, shard: str, sequence_number: str) -> None: ...


class Alerts(Protocol):
    """Takes alerts on to people and programs."""

    def publish(self, alerts: Sequence[RuleAlert]) -> None:
        """Send all of them.

        Raises:
            StoreUnavailable: one was not taken.
        """


@dataclass(frozen=True, slots=True)
class RuleAlert:
    """What rules said of one wallet because of one transaction."""

    effect_id: str
    wallet_id: str
    rules: tuple[str, ...]
    says: str
    policy: str
    tx_id: str
    occurred_at: datetime


@dataclass(slots=True)
class RulesReport:
    """What became of a batch. `skipped` are records that are no transactions: the ingestion function answers for them."""

    records: int = 0
    judged: int = 0
    repeated: int = 0
    skipped: int = 0
    read_again: int = 0
    alerts: int = 0
    hits: Counter[str] = field(default_factory=Counter)

    def lines(self, seconds: float, now_ms: int) -> list[str]:
        """The figures for CloudWatch: one line for the function, and one for each rule that spoke."""
        figures = {
            "Judged": (self.judged, "Count"), "RuleAlerts": (self.alerts, "Count"), "Skipped": (self.skipped, "Count"),
            "ReadAgain": (self.read_again, "Count"), "JudgingMs": (round(seconds * 1000, 1), "Milliseconds"),
        }  # fmt: skip
        found = [metrics_line({"Function": FRAUD_RULES}, figures, now_ms)]
        for rule, hits in sorted(self.hits.items()):
            found.append(metrics_line({"Function": FRAUD_RULES, "Rule": rule}, {"RuleHits": (hits, "Count")}, now_ms))
        return found


class _Memory:
    """What the rules know of one shard, and up to which record."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.engine = policy, RuleEngine(policy)
        self.known_to: str | None = None  # the last record that the rules have seen
        self.has_past = False
        self._seen: OrderedDict[str, None] = OrderedDict()

    def is_repeated(self, tx_id: str) -> bool:
        """Whether this transaction was judged already; else it is taken as judged."""
        if tx_id in self._seen:
            return True
        self._seen[tx_id] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return False


class FraudRules:
    """Judges batches, each of one shard, as Lambda gives them. Not for several threads.

    Args:
        policy: the policy that holds now; asked with each batch.
    """

    def __init__(
        self,
        policy: Callable[[], HeldPolicy],
        past: Past,
        places: Places,
        alerts: Alerts,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy, self._past, self._places, self._alerts, self._monotonic = policy, past, places, alerts, monotonic
        self._memories: dict[tuple[str, str], _Memory] = {}

    def handle(self, records: Sequence[KinesisRecord]) -> RulesReport:
        """Judge one batch in its order and send its alerts.

        Raises:
            StoreUnavailable: alerts, places or the stream do not answer: the batch comes again.
        """
        report = RulesReport(records=len(records))
        if not records:
            return report
        shard = (records[0].stream, records[0].shard)
        memory = self._memory(shard, records[0], report)
        alerts: list[RuleAlert] = []
        # What fails from here on has counted transactions that come again: the memory is made anew then.
        del self._memories[shard]
        for record in records:
            alerts += self._judge(memory, record, report)
        self._alerts.publish(alerts)
        report.alerts = len(alerts)
        memory.known_to = records[-1].sequence_number
        self._places.save(*shard, memory.known_to)
        self._memories[shard] = memory
        return report

    def _memory(self, shard: tuple[str, str], first: KinesisRecord, report: RulesReport) -> _Memory:
        """What the rules know of all before a record. Kept half-made where reading is cut off: the next call goes on from there."""
        held, place = self._policy(), self._places.load(*shard)
        memory = self._memories.get(shard)
        if memory is None or memory.policy != held.policy:
            memory = self._memories[shard] = _Memory(held.policy)
        is_current = memory.has_past and memory.known_to == place
        if is_current or not memory.policy.rules or (memory.known_to is not None and int(memory.known_to) >= int(first.sequence_number)):
            return memory
        memory.has_past = False
        started = self._monotonic()
        start = memory.known_to or first.arrived_at - timedelta(seconds=looks_back_s(memory.policy))
        for record in self._past.between(*shard, start, first.sequence_number):
            self._learn(memory, record, record.arrived_at >= held.since)
            memory.known_to = record.sequence_number
            report.read_again += 1
            if self._monotonic() - started > READS_S:
                raise StoreUnavailable(f"the past of {shard[1]} is read to {memory.known_to}: the batch comes again, and reading goes on")
        memory.has_past = True
        return memory

    @staticmethod
    def _learn(memory: _Memory, record: KinesisRecord, was_told: bool) -> None:
        """Take a record of the past in; of one from before the policy nobody was told, so it must not quiet a rule."""
        transaction = transaction_in(record)
        if transaction is not None and not memory.is_repeated(transaction.tx_id):
            row = rule_row(transaction, record.arrived_at)
            if was_told:
                memory.engine.judge(row)
            else:
                memory.engine.observe(row)

    @staticmethod
    def _judge(memory: _Memory, record: KinesisRecord, report: RulesReport) -> list[RuleAlert]:
        transaction = transaction_in(record)
        if transaction is None:
            report.skipped += 1
            return []
        if memory.is_repeated(transaction.tx_id):
            report.repeated += 1
            return []
        report.judged += 1
        hits = memory.engine.judge(rule_row(transaction, record.arrived_at))
        report.hits.update(hit.rule for hit in hits)
        return alerts_of(memory.policy, hits, transaction)


def transaction_in(record: KinesisRecord) -> TransactionRecorded | None:
    """The transaction that a record is; none for a step of a visit, and for what the ingestion function refuses."""
    try:
        value = object_of(record.data)
        if KIND in value:
            return None
        return transaction_of(value, Origin(f"kinesis:{record.stream}", MAPPING, "", record.place), record.arrived_at)
    except (Refused, ValueError, ArithmeticError, TypeError):
        return None


def alerts_of(policy: Policy, hits: Sequence[Hit], transaction: TransactionRecorded) -> list[RuleAlert]:
    """One alert for each wallet that rules spoke of."""
    return [
        RuleAlert(
            f"rule/{policy.title}/{transaction.tx_id}/{wallet_id}", wallet_id, tuple(hit.rule for hit in spoken),
            "; ".join(hit.says for hit in spoken)[:MAX_TEXT_LENGTH], policy.title, transaction.tx_id, transaction.occurred_at,
        )
        for wallet_id, spoken in by_wallet(hits).items()
    ]  # fmt: skip


def rule_row(transaction: TransactionRecorded, arrived_at: datetime) -> dict[str, Any]:
    """A transaction as `RuleEngine.judge` takes it. None counts as later than it arrived, as in `rule_alerts.rule_rows`."""
    payment = transaction.payment
    row: dict[str, Any] = {
        "network": transaction.network, "kind": transaction.kind.value, "status": transaction.status.value,
        "source_wallet_id": transaction.source_wallet_id, "target_wallet_id": transaction.target_wallet_id,
        "asset": transaction.asset, "amount": transaction.amount,
        "occurred_us": (min(transaction.occurred_at, arrived_at) - EPOCH) // timedelta(microseconds=1),
    }  # fmt: skip
    for name in ("merchant_category", "location", "country", "payment_method", "device_id"):
        row[f"payment.{name}"] = getattr(payment, name) if payment is not None else None
    return row


def looks_back_s(policy: Policy) -> int:
    """How long before a batch a fresh environment begins to read: a rule's time, and before that the time for which it is quiet."""
    unbounded = any(rule.new is not None or rule.after for rule in policy.rules)
    return max([LOOKS_BACK_S if unbounded else 0, *((rule.within_s or 0) + rule.quiet_s for rule in policy.rules)])
