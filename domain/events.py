"""Events: facts in the past tense, never edited. Field names are those of the Avro schemas."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from domain import values
from domain.errors import InvalidValue


class TransactionKind(StrEnum):
    """What sort of movement of value it is; `unknown` only for readers older than the writer."""

    UNKNOWN = "unknown"
    TRANSFER = "transfer"
    TRADE = "trade"
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    PAYMENT = "payment"
    REFUND = "refund"


class TransactionStatus(StrEnum):
    """settled: value moved. failed: reverted. declined: refused. Only settled transactions move value."""

    UNKNOWN = "unknown"
    SETTLED = "settled"
    FAILED = "failed"
    DECLINED = "declined"


class Label(StrEnum):
    """Truth learned later."""

    UNKNOWN = "unknown"
    LICIT = "licit"
    ILLICIT = "illicit"


class AlertReason(StrEnum):
    """Why an alert was raised."""

    UNKNOWN = "unknown"
    SCORE = "score"
    FROZEN_WALLET_MOVED = "frozen_wallet_moved"
    RULE = "rule"


class Verdict(StrEnum):
    """What a person decided about a case."""

    UNKNOWN = "unknown"
    FRAUD = "fraud"
    NOT_FRAUD = "not_fraud"
    INCONCLUSIVE = "inconclusive"


class WalletKind(StrEnum):
    """What holds the value."""

    UNKNOWN = "unknown"
    ADDRESS = "address"
    CUSTOMER = "customer"
    CARD = "card"
    MERCHANT = "merchant"
    EXCHANGE = "exchange"
    CONTRACT = "contract"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record came from; not part of what happened."""

    source: str
    mapping: str
    ingest_id: str
    row: int


@dataclass(frozen=True, slots=True)
class Payment:
    """What a card or shop payment adds."""

    merchant_category: str | None = None
    location: str | None = None
    country: str | None = None
    payment_method: str | None = None
    device_id: str | None = None


@dataclass(frozen=True, slots=True)
class TransactionRecorded:
    """Value moved, or tried to move, between two wallets."""

    tx_id: str
    network: str
    kind: TransactionKind
    status: TransactionStatus
    source_wallet_id: str | None
    target_wallet_id: str | None
    amount: Decimal
    asset: str
    counter_amount: Decimal | None
    counter_asset: str | None
    fee: Decimal | None
    fee_asset: str | None
    occurred_at: datetime
    block: int | None
    payment: Payment | None
    card_features: tuple[float, ...] | None
    personal: bytes | None
    origin: Origin

    def validate(self, arrived_at: datetime | None = None) -> None:
        """Check every rule of a transaction.

        Args:
            arrived_at: when the command arrived, for the check against the future.

        Raises:
            InvalidValue: the first rule broken, with its field.
        """
        values.network(self.network)
        values.identifier("tx_id", self.tx_id, self.network)
        if self.kind is TransactionKind.UNKNOWN:
            raise InvalidValue("kind", "expected a known kind, found unknown")
        if self.status is TransactionStatus.UNKNOWN:
            raise InvalidValue("status", "expected a known status, found unknown")
        if self.source_wallet_id is not None:
            values.identifier("source_wallet_id", self.source_wallet_id, self.network)
        if self.target_wallet_id is not None:
            values.identifier("target_wallet_id", self.target_wallet_id, self.network)
        values.amount("amount", self.amount)
        values.identifier("asset", self.asset)
        for name, value, asset in (
            ("counter", self.counter_amount, self.counter_asset),
            ("fee", self.fee, self.fee_asset),
        ):
            if (value is None) != (asset is None):
                raise InvalidValue(f"{name}_asset", "expected an amount and its asset together, found one of them")
            if value is not None and asset is not None:
                values.amount("counter_amount" if name == "counter" else name, value)
                values.identifier(f"{name}_asset", asset)
        values.occurred_at(self.occurred_at, arrived_at)
        if self.payment is not None:
            for name in ("merchant_category", "location", "country", "payment_method", "device_id"):
                values.text(f"payment.{name}", getattr(self.payment, name) or "")
        if self.block is not None and self.block < 0:
            raise InvalidValue("block", f"expected zero or more, found {self.block}")
        if self.personal is not None:
            raise InvalidValue("personal", "expected nothing: sealing is not built, so nothing personal may be stored")


@dataclass(frozen=True, slots=True)
class WalletDescribed:
    """What is known about a wallet from outside the stream."""

    wallet_id: str
    kind: WalletKind
    name: str | None
    country: str | None
    source: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class WalletLabelled:
    """Truth about a wallet."""

    wallet_id: str
    label: Label
    source: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class TransactionLabelled:
    """Truth about one transaction."""

    tx_id: str
    label: Label
    source: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class WalletFrozen:
    """A wallet may not send until it is released."""

    wallet_id: str
    reason: str
    actor: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class WalletReleased:
    """A frozen wallet may send again."""

    wallet_id: str
    reason: str
    actor: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class TransactionHeld:
    """A transaction of an authorised network waits, its source wallet being frozen. `record` is the command as received."""

    tx_id: str
    wallet_id: str
    reason: str
    record: bytes
    known_at: datetime


@dataclass(frozen=True, slots=True)
class TransactionReleased:
    """A held transaction was let through."""

    tx_id: str
    wallet_id: str
    reason: str
    actor: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class TransactionVoided:
    """A transaction is taken back: wrong mapping, chargeback, reorganisation. Its tx_id may be recorded again with another payload."""

    tx_id: str
    reason: str
    replaced_by: str | None
    known_at: datetime


@dataclass(frozen=True, slots=True)
class AlertRaised:
    """A wallet passed the policy for a reason that had no open alert; allocates the case."""

    case_id: str
    wallet_id: str
    reason: AlertReason
    score: float
    threshold: float
    tx_id: str
    tx_seq: int
    explanation: str
    model_version: str
    known_at: datetime
    rules: str | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class AlertExtended:
    """A later transaction joins an open alert."""

    case_id: str
    wallet_id: str
    score: float
    tx_id: str
    tx_seq: int
    known_at: datetime
    rules: str | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class CaseOpened:
    """Someone started to look at an alert."""

    case_id: str
    wallet_id: str
    actor: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class CaseAssigned:
    """The case has an owner."""

    case_id: str
    assignee: str
    actor: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class VerdictReached:
    """A person decided what it was."""

    case_id: str
    wallet_id: str
    verdict: Verdict
    reason: str
    actor: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class CaseClosed:
    """Work on the case has ended."""

    case_id: str
    reason: str
    actor: str
    known_at: datetime


WalletEvent = WalletDescribed | WalletLabelled | WalletFrozen | WalletReleased | TransactionHeld | TransactionReleased
CaseEvent = AlertRaised | AlertExtended | CaseOpened | CaseAssigned | VerdictReached | CaseClosed
DomainEvent = WalletEvent | CaseEvent | TransactionLabelled | TransactionVoided
