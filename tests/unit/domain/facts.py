"""Facts that the domain's tests speak of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from domain.commands import RaiseAlert
from domain.events import AlertReason, DomainEvent, Origin, TransactionKind, TransactionRecorded, TransactionStatus
from domain.handler import Decider, TransactionFacts

AT = datetime(2024, 5, 1, 12, tzinfo=UTC)
WALLET = "card:9f"
TX = "card:tx1:0"


class KnownTransactions:
    """What the log holds, in a dict."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    def digests(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.kept.get(key) for key in keys]

    def known(self, tx_id: str) -> bytes | None:
        return self.kept.get(tx_id.encode())


def decider_after(*events: DomainEvent, seen: KnownTransactions | None = None) -> Decider:
    """A decider that has taken these events in. Cards are authorised, everything else is observed."""
    decider = Decider(seen or KnownTransactions(), frozenset({"card"}))
    for event in events:
        decider.evolve(event)
    return decider


def moved(tx_id: str, source: str | None, target: str | None = None) -> TransactionFacts:
    """A transaction as far as a decision looks at it."""
    return TransactionFacts(tx_id, tx_id.partition(":")[0], source, target, f"record of {tx_id}".encode(), AT)


def decide_all(decider: Decider, transactions: Iterable[TransactionFacts], first_seq: int = 0) -> Any:
    """Decide transactions that stand for themselves: the tx_id is the key, the record the digest."""
    found = list(transactions)
    return decider.decide_transactions([tx.tx_id.encode() for tx in found], [tx.record[-8:] for tx in found], first_seq, found.__getitem__)


def alert(wallet_id: str = WALLET, tx_id: str = TX, **changes: Any) -> RaiseAlert:
    """A request for an alert on a high score."""
    request = RaiseAlert(wallet_id, AlertReason.SCORE, 0.97, 0.9, tx_id, 4, "many small payments in", "m1", AT)
    return replace(request, **changes)


def transaction(**changes: Any) -> TransactionRecorded:
    """A valid transaction, changed."""
    base = TransactionRecorded(
        tx_id="ethereum:0xaa:0", network="ethereum", kind=TransactionKind.TRANSFER, status=TransactionStatus.SETTLED,
        source_wallet_id="ethereum:0xa", target_wallet_id="ethereum:0xb", amount=Decimal("1.5"), asset="ETH",
        counter_amount=None, counter_asset=None, fee=None, fee_asset=None, occurred_at=AT, block=None, payment=None,
        card_features=None, personal=None, origin=Origin("f.csv", "ethereum@1", "run", 0),
    )  # fmt: skip
    return replace(base, **changes)
