"""The command handler's mind: given what has happened, what does each command give.

It loads aggregates from events, lets them decide, and keeps their state; reading commands and appending events is the
runner's work. Its state is a pure function of the log: `evolve` brings it back after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Protocol

from domain import case as cases
from domain import wallet as wallets
from domain.case import Case, CaseStatus
from domain.commands import (
    CaseCommand,
    Command,
    DescribeWallet,
    FreezeWallet,
    LabelTransaction,
    LabelWallet,
    RaiseAlert,
    ReleaseWallet,
    VoidTransaction,
)
from domain.errors import CommandRefused
from domain.events import (
    AlertExtended,
    AlertRaised,
    AlertReason,
    CaseAssigned,
    CaseClosed,
    CaseOpened,
    DomainEvent,
    TransactionHeld,
    TransactionLabelled,
    TransactionReleased,
    TransactionVoided,
    VerdictReached,
    WalletDescribed,
    WalletFrozen,
    WalletLabelled,
    WalletReleased,
)
from domain.revision import digest_of, is_voided, revised, seq_of
from domain.values import identifier, text
from domain.wallet import Wallet


class Outcome(IntEnum):
    """What became of a transaction. The order is that of the counters in `CommandsHandled`."""

    RECORDED = 0
    DUPLICATE = 1
    CONFLICT = 2
    HELD = 3


class SeenTransactions(Protocol):
    """Which transactions the log holds: by a 16-byte key of the tx_id, what `domain.revision` keeps of it."""

    def digests(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is kept for each key, none where the key is new."""

    def known(self, tx_id: str) -> bytes | None:
        """What is kept for one transaction."""


@dataclass(frozen=True, slots=True)
class TransactionFacts:
    """What a decision needs to know of a transaction; read only where a wallet is frozen."""

    tx_id: str
    network: str
    source_wallet_id: str | None
    target_wallet_id: str | None
    record: bytes
    arrived_at: datetime


@dataclass(slots=True)
class Decisions:
    """What a run of transactions gave: an outcome each, the keys to remember, and events beside the transactions."""

    outcomes: list[Outcome]
    new_digests: dict[bytes, bytes]
    events: list[tuple[int, DomainEvent]] = field(default_factory=list)


class Decider:
    """The state of all aggregates that differ from the default, and the decisions on it.

    Args:
        seen: the transactions that the log holds.
        authorised: networks where a frozen source may not send (cards, payments); on any other what happened is
            recorded, and a frozen party raises an alert.
    """

    def __init__(self, seen: SeenTransactions, authorised: frozenset[str]) -> None:
        self._seen = seen
        self._authorised = authorised
        self._wallets: dict[str, Wallet] = {}
        self._cases: dict[str, Case] = {}
        self._active_case: dict[tuple[str, AlertReason], str] = {}

    def decide_transactions(
        self, keys: Sequence[bytes], digests: Sequence[bytes], next_seq: int, facts: Callable[[int], TransactionFacts]
    ) -> Decisions:
        """Decide a run of valid transactions in order.

        Args:
            keys: 16 bytes a transaction, from its tx_id.
            digests: 8 bytes a transaction, of all that happened (its origin left out).
            next_seq: what the first recorded one gets.
            facts: the i-th transaction in full, asked for only while some wallet is frozen.
        """
        known = self._seen.digests(keys)
        decisions = Decisions([Outcome.RECORDED] * len(keys), {})
        if not self._wallets and known.count(None) == len(known):
            decisions.new_digests = dict(zip(keys, digests, strict=True))
            if len(decisions.new_digests) == len(keys):  # the common case: all are new and nobody is frozen
                return decisions
            decisions.new_digests = {}
        fresh = decisions.new_digests
        outcomes = decisions.outcomes
        seq = next_seq
        for i, (key, digest, stored) in enumerate(zip(keys, digests, known, strict=True)):
            kept = fresh.get(key, stored)
            if kept is not None and (digest_of(kept) == digest or not is_voided(kept)):
                outcomes[i] = Outcome.DUPLICATE if digest_of(kept) == digest else Outcome.CONFLICT
                continue
            fresh[key] = digest if kept is None else revised(digest, seq)
            if self._wallets:
                self._decide_frozen(i, facts(i), decisions)
            seq += outcomes[i] is Outcome.RECORDED
        return decisions

    def _decide_frozen(self, i: int, tx: TransactionFacts, decisions: Decisions) -> None:
        source = self._wallets.get(tx.source_wallet_id or "")
        if source is not None:
            is_authorised = tx.network in self._authorised
            held = wallets.decide_transaction(source, tx.tx_id, tx.record, is_authorised, tx.arrived_at)
            if held is not None:
                decisions.outcomes[i] = Outcome.HELD
                self.evolve(held)
                decisions.events.append((i, held))
                return
        for wallet_id in dict.fromkeys((tx.source_wallet_id, tx.target_wallet_id)):  # a set has no order of its own
            wallet = self._wallets.get(wallet_id or "")
            if wallet is not None and wallet.is_frozen:
                request = RaiseAlert(
                    wallet.wallet_id, AlertReason.FROZEN_WALLET_MOVED, 1.0, 1.0, tx.tx_id, -1,
                    "a frozen wallet took part in a transaction", "", tx.arrived_at,
                )  # fmt: skip
                decisions.events += [(i, event) for event in self.decide(request)]

    def decide(self, command: Command) -> list[DomainEvent]:
        """The events that a command other than `RecordTransaction` gives; the state has taken them in.

        Raises:
            CommandRefused: the aggregate says no; its `reason` is a stable code.
            InvalidValue: a value in the command breaks its rule.
        """
        events: list[DomainEvent] = []
        match command:
            case LabelTransaction():
                identifier("tx_id", command.tx_id)
                text("source", command.source)
                given = wallets.label(command.label)
                events.append(TransactionLabelled(command.tx_id, given, command.source, command.known_at))
            case VoidTransaction():
                events.append(self._void(command))
            case DescribeWallet() | LabelWallet() | FreezeWallet() | ReleaseWallet():
                wallet = self._wallets.get(command.wallet_id) or Wallet(command.wallet_id)
                events.extend(wallets.decide(wallet, command))
            case _:
                events.extend(cases.decide(self._case_of(command), command))
        for event in events:
            self.evolve(event)
        return events

    def evolve(self, event: DomainEvent) -> None:
        """Take in an event of the log, new or old.

        Raises:
            InvalidValue: an event that no aggregate could have given: the log is corrupt.
        """
        match event:
            case AlertRaised() | AlertExtended() | CaseOpened() | CaseAssigned() | VerdictReached() | CaseClosed():
                state = cases.evolve(self._cases.get(event.case_id), event)
                self._cases[event.case_id] = state
                if isinstance(event, AlertRaised):
                    self._active_case[(event.wallet_id, event.reason)] = event.case_id
                elif state.status is CaseStatus.CLOSED:
                    self._active_case.pop((state.wallet_id, state.reason), None)
            case WalletFrozen() | WalletReleased() | TransactionHeld() | TransactionReleased():
                wallet = wallets.evolve(self._wallets.get(event.wallet_id) or Wallet(event.wallet_id), event)
                if wallet.is_default:
                    self._wallets.pop(wallet.wallet_id, None)
                else:
                    self._wallets[wallet.wallet_id] = wallet
            case WalletDescribed() | WalletLabelled() | TransactionLabelled() | TransactionVoided():
                pass

    def held(self, wallet_id: str) -> tuple[TransactionHeld, ...]:
        """A wallet's waiting transactions, in order of arrival."""
        wallet = self._wallets.get(wallet_id)
        return wallet.held if wallet is not None else ()

    def _void(self, command: VoidTransaction) -> TransactionVoided:
        identifier("tx_id", command.tx_id)
        text("actor", command.actor)
        reason = text("reason", command.reason)
        if command.replaced_by is not None:
            identifier("replaced_by", command.replaced_by)
        kept = self._seen.known(command.tx_id)
        if kept is None:
            raise CommandRefused("unknown_transaction", f"transaction {command.tx_id} was never recorded")
        if is_voided(kept):
            raise CommandRefused("already_voided", f"transaction {command.tx_id} is void already")
        stands_at = seq_of(kept)
        if command.seq is not None and stands_at is not None and stands_at != command.seq:
            message = f"transaction {command.tx_id} of seq {command.seq} was replaced by a revision at {stands_at}, which stands"
            raise CommandRefused("not_current", message)
        if any(held.tx_id == command.tx_id for wallet in self._wallets.values() for held in wallet.held):
            raise CommandRefused("held", f"transaction {command.tx_id} waits with its frozen wallet: nothing of it is recorded yet")
        return TransactionVoided(command.tx_id, reason, command.replaced_by, command.known_at)

    def _case_of(self, command: CaseCommand) -> Case | None:
        if isinstance(command, RaiseAlert):
            if command.reason not in list(AlertReason):
                raise CommandRefused("unknown_reason", f"expected a known reason, found {command.reason[:40]!r}")
            reason = AlertReason(command.reason)
            active = self._active_case.get((command.wallet_id, reason))
            return self._cases.get(active or cases.case_id(command.wallet_id, reason, command.tx_id))
        return self._cases.get(command.case_id)
