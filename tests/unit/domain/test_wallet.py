"""The wallet: given these events, when this command, then these events."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from domain import wallet
from domain.commands import DescribeWallet, FreezeWallet, LabelWallet, ReleaseWallet
from domain.errors import CommandRefused, InvalidValue
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
from domain.wallet import Wallet
from tests.unit.domain.facts import AT, WALLET

FROZEN = WalletFrozen(WALLET, "court order", "ann", AT)
RELEASED = WalletReleased(WALLET, "checked", "bob", AT)
RELEASE = ReleaseWallet(WALLET, "checked", "bob", AT)


def held(number: int) -> TransactionHeld:
    return TransactionHeld(f"card:tx{number}:0", WALLET, "source wallet is frozen", b"record", AT)


def given(*events: WalletEvent) -> Wallet:
    return reduce(wallet.evolve, events, Wallet(WALLET))


def test_freezing_a_wallet_is_a_fact() -> None:
    assert wallet.decide(given(), FreezeWallet(WALLET, "court order", "ann", AT)) == [FROZEN]


def test_a_frozen_wallet_is_not_frozen_twice() -> None:
    with pytest.raises(CommandRefused, match="card:9f is frozen already") as caught:
        wallet.decide(given(FROZEN), FreezeWallet(WALLET, "again", "ann", AT))
    assert caught.value.reason == "already_frozen"


@pytest.mark.parametrize("events", [(), (FROZEN, RELEASED)], ids=["never-frozen", "released"])
def test_a_wallet_that_is_not_frozen_cannot_be_released(events: tuple[WalletEvent, ...]) -> None:
    with pytest.raises(CommandRefused, match="is not frozen") as caught:
        wallet.decide(given(*events), RELEASE)
    assert caught.value.reason == "not_frozen"


def test_a_release_lets_what_waited_through_in_order_of_arrival() -> None:
    found = wallet.decide(given(FROZEN, held(2), held(1), held(3)), RELEASE)
    assert found[0] == RELEASED
    assert found[1:] == [TransactionReleased(f"card:tx{n}:0", WALLET, "checked", "bob", AT) for n in (2, 1, 3)]


def test_after_a_release_nothing_waits_and_the_state_is_that_of_any_wallet() -> None:
    before = given(FROZEN, held(1))
    after = reduce(wallet.evolve, wallet.decide(before, RELEASE), before)
    assert (before.is_default, after) == (False, Wallet(WALLET))
    assert after.is_default


def test_a_frozen_source_waits_where_the_institution_is_asked_first() -> None:
    assert wallet.decide_transaction(given(FROZEN), "card:tx1:0", b"record", True, AT) == held(1)
    assert wallet.decide_transaction(given(FROZEN), "card:tx1:0", b"record", False, AT) is None
    assert wallet.decide_transaction(given(), "card:tx1:0", b"record", True, AT) is None


def test_labels_and_descriptions_change_no_decision() -> None:
    labelled = wallet.decide(given(), LabelWallet(WALLET, "illicit", "list", AT))
    described = wallet.decide(given(), DescribeWallet(WALLET, "exchange", "Kraken", "US", "list", AT))
    assert labelled == [WalletLabelled(WALLET, Label.ILLICIT, "list", AT)]
    assert described == [WalletDescribed(WALLET, WalletKind.EXCHANGE, "Kraken", "US", "list", AT)]
    assert given(*labelled, *described) == Wallet(WALLET)


def test_a_kind_that_this_code_does_not_know_is_unknown() -> None:
    (event,) = wallet.decide(given(), DescribeWallet(WALLET, "starship", None, None, "list", AT))
    assert isinstance(event, WalletDescribed)
    assert event.kind is WalletKind.UNKNOWN


@pytest.mark.parametrize("label", ["unknown", "ILLICIT", "", "fraud"])
def test_a_label_is_licit_or_illicit(label: str) -> None:
    with pytest.raises(CommandRefused, match="expected licit or illicit, found") as caught:
        wallet.decide(given(), LabelWallet(WALLET, label, "list", AT))
    assert caught.value.reason == "unknown_label"


LONG = "x" * 1025


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (FreezeWallet("nobody", "r", "ann", AT), "wallet_id"),
        (FreezeWallet(WALLET, LONG, "ann", AT), "reason"),
        (FreezeWallet(WALLET, "r", LONG, AT), "actor"),
        (LabelWallet(WALLET, "licit", LONG, AT), "source"),
        (DescribeWallet(WALLET, "card", LONG, None, "s", AT), "name"),
        (DescribeWallet(WALLET, "card", None, LONG, "s", AT), "country"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_text_of_any_length_is_not_taken(command: Any, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        wallet.decide(given(), command)
    assert caught.value.field == field
