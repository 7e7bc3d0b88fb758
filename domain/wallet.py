"""The wallet aggregate: may it send, and which of its transactions wait.

`decide` says which events a command gives, `evolve` what an event makes of the state; both are pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from domain import values
from domain.commands import DescribeWallet, FreezeWallet, LabelWallet, ReleaseWallet, WalletCommand
from domain.errors import CommandRefused
from domain.events import (
    Label,
    TransactionHeld,
    TransactionReleased,
    WalletDescribed,
    WalletEvent,
    WalletFrozen,
    WalletKind,
    WalletLabelled,
    WalletReleased,
)


@dataclass(frozen=True, slots=True)
class Wallet:
    """A wallet's state as far as decisions need it. `held` are its waiting transactions in order of arrival."""

    wallet_id: str
    is_frozen: bool = False
    held: tuple[TransactionHeld, ...] = ()

    @property
    def is_default(self) -> bool:
        """Whether this state is that of any wallet never decided upon, so that it need not be kept."""
        return not self.is_frozen and not self.held


def decide(wallet: Wallet, command: WalletCommand) -> list[WalletEvent]:
    """The events that `command` gives on `wallet`.

    Raises:
        CommandRefused: `already_frozen`, `not_frozen` or `unknown_label`.
        InvalidValue: an id or a text breaks its rule.
    """
    values.wallet_id(command.wallet_id)
    match command:
        case DescribeWallet():
            kind = WalletKind(command.kind) if command.kind in list(WalletKind) else WalletKind.UNKNOWN
            for field in ("name", "country", "source"):
                values.text(field, getattr(command, field) or "")
            return [WalletDescribed(command.wallet_id, kind, command.name, command.country, command.source, command.known_at)]
        case LabelWallet():
            source = values.text("source", command.source)
            return [WalletLabelled(command.wallet_id, label(command.label), source, command.known_at)]
        case FreezeWallet():
            if wallet.is_frozen:
                raise CommandRefused("already_frozen", f"wallet {command.wallet_id} is frozen already")
            reason, actor = values.text("reason", command.reason), values.text("actor", command.actor)
            return [WalletFrozen(command.wallet_id, reason, actor, command.known_at)]
        case ReleaseWallet():
            if not wallet.is_frozen:
                raise CommandRefused("not_frozen", f"wallet {command.wallet_id} is not frozen")
            reason, actor = values.text("reason", command.reason), values.text("actor", command.actor)
            released: list[WalletEvent] = [WalletReleased(command.wallet_id, reason, actor, command.known_at)]
            released += [
                TransactionReleased(held.tx_id, held.wallet_id, command.reason, command.actor, command.known_at) for held in wallet.held
            ]
            return released


def decide_transaction(wallet: Wallet, tx_id: str, record: bytes, is_authorised: bool, at: datetime) -> TransactionHeld | None:
    """What a frozen source does to a transaction: on an authorised network it waits, on an observed one it happened."""
    if wallet.is_frozen and is_authorised:
        return TransactionHeld(tx_id, wallet.wallet_id, "source wallet is frozen", record, at)
    return None


def evolve(wallet: Wallet, event: WalletEvent) -> Wallet:
    """The state after `event`."""
    match event:
        case WalletFrozen():
            return replace(wallet, is_frozen=True)
        case WalletReleased():
            return replace(wallet, is_frozen=False)
        case TransactionHeld():
            return replace(wallet, held=(*wallet.held, event))
        case TransactionReleased():
            return replace(wallet, held=tuple(held for held in wallet.held if held.tx_id != event.tx_id))
        case WalletDescribed() | WalletLabelled():
            return wallet


def label(value: str) -> Label:
    """A label that a person may give.

    Raises:
        CommandRefused: `unknown_label`.
    """
    if value not in (Label.LICIT, Label.ILLICIT):
        raise CommandRefused("unknown_label", f"expected licit or illicit, found {value[:40]!r}")
    return Label(value)
