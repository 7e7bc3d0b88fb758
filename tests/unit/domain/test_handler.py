"""The command handler's mind: idempotent by tx_id, freeze and release, alerts; its state is a function of the log."""

from __future__ import annotations

import random
from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import revision
from domain.commands import (
    AssignCase,
    CloseCase,
    DescribeWallet,
    FreezeWallet,
    LabelTransaction,
    LabelWallet,
    OpenCase,
    ReachVerdict,
    ReleaseWallet,
    VoidTransaction,
)
from domain.errors import CommandRefused, InvalidValue
from domain.events import (
    AlertExtended,
    AlertRaised,
    AlertReason,
    DomainEvent,
    Label,
    TransactionHeld,
    TransactionLabelled,
    TransactionReleased,
    TransactionVoided,
    WalletFrozen,
    WalletReleased,
)
from domain.handler import Decider, Outcome, TransactionFacts
from tests.unit.domain.facts import AT, WALLET, KnownTransactions, alert, decide_all, decider_after, moved

FROZEN = WalletFrozen(WALLET, "court order", "ann", AT)
CHAIN = "ethereum:0xa"


def test_a_transaction_is_recorded_once_whoever_sends_it_again() -> None:
    seen = KnownTransactions()
    decider = decider_after(seen=seen)
    first = decide_all(decider, [moved("card:1:0", WALLET)])
    seen.kept.update(first.new_digests)
    again = decide_all(decider, [moved("card:1:0", WALLET), moved("card:2:0", WALLET)])
    assert first.outcomes == [Outcome.RECORDED]
    assert again.outcomes == [Outcome.DUPLICATE, Outcome.RECORDED]
    assert list(again.new_digests) == [b"card:2:0"]


def test_a_duplicate_inside_one_batch_is_seen_before_anything_is_stored() -> None:
    found = decide_all(decider_after(), [moved("card:1:0", WALLET), moved("card:2:0", WALLET), moved("card:1:0", WALLET)])
    assert found.outcomes == [Outcome.RECORDED, Outcome.RECORDED, Outcome.DUPLICATE]


@pytest.mark.parametrize("is_stored", [True, False], ids=["in-the-log", "in-the-batch"])
def test_the_same_id_with_another_payload_is_a_conflict_and_the_first_stands(is_stored: bool) -> None:
    seen = KnownTransactions()
    if is_stored:
        seen.kept[b"t"] = b"thefirst"
    before: list[bytes] = [] if is_stored else [b"thefirst"]
    digests = [*before, b"theother", b"thefirst"]
    found = decider_after(seen=seen).decide_transactions([b"t"] * len(digests), digests, 0, lambda i: pytest.fail("not needed"))
    assert found.outcomes[-2:] == [Outcome.CONFLICT, Outcome.DUPLICATE]
    assert found.new_digests == ({} if is_stored else {b"t": b"thefirst"})


def test_while_no_wallet_is_frozen_no_transaction_is_read() -> None:
    decider = decider_after(FROZEN, WalletReleased(WALLET, "r", "ann", AT))
    found = decider.decide_transactions([b"1", b"2"], [b"a", b"b"], 0, lambda i: pytest.fail("not needed"))
    assert found.outcomes == [Outcome.RECORDED] * 2


def test_on_an_authorised_network_a_frozen_source_waits() -> None:
    found = decide_all(decider_after(FROZEN), [moved("card:1:0", WALLET), moved("card:2:0", "card:other")])
    assert found.outcomes == [Outcome.HELD, Outcome.RECORDED]
    assert found.events == [(0, TransactionHeld("card:1:0", WALLET, "source wallet is frozen", b"record of card:1:0", AT))]


def test_a_held_transaction_sent_again_is_a_duplicate_and_waits_once() -> None:
    decider = decider_after(FROZEN)
    found = decide_all(decider, [moved("card:1:0", WALLET), moved("card:1:0", WALLET)])
    assert found.outcomes == [Outcome.HELD, Outcome.DUPLICATE]
    assert [tx.tx_id for tx in decider.held(WALLET)] == ["card:1:0"]


def test_on_an_observed_network_it_happened_and_raises_an_alert() -> None:
    frozen = WalletFrozen(CHAIN, "court order", "ann", AT)
    found = decide_all(decider_after(frozen), [moved("ethereum:1:0", CHAIN), moved("ethereum:2:0", "ethereum:0xb", CHAIN)])
    assert found.outcomes == [Outcome.RECORDED] * 2
    (_, raised), (_, joined) = found.events
    assert isinstance(raised, AlertRaised)
    assert (raised.wallet_id, raised.reason, raised.tx_id) == (CHAIN, AlertReason.FROZEN_WALLET_MOVED, "ethereum:1:0")
    assert isinstance(joined, AlertExtended)
    assert (joined.case_id, joined.tx_id) == (raised.case_id, "ethereum:2:0")


def test_a_frozen_target_is_no_reason_to_wait_but_to_look() -> None:
    found = decide_all(decider_after(FROZEN), [moved("card:1:0", "card:other", WALLET)])
    assert found.outcomes == [Outcome.RECORDED]
    assert isinstance(found.events[0][1], AlertRaised)


def test_two_frozen_parties_are_named_source_first_in_every_process() -> None:
    names = [f"ethereum:0x{i}" for i in range(12)]
    decider = decider_after(*(WalletFrozen(name, "r", "ann", AT) for name in names))
    found = decide_all(decider, [moved(f"ethereum:{i}:0", names[i], names[i + 1]) for i in range(0, 12, 2)])
    assert [event.wallet_id for _, event in found.events] == names


def test_to_oneself_is_one_alert() -> None:
    found = decide_all(decider_after(WalletFrozen(CHAIN, "r", "ann", AT)), [moved("ethereum:1:0", CHAIN, CHAIN)])
    assert len(found.events) == 1


def test_a_release_lets_the_held_through_in_order_and_later_ones_pass() -> None:
    decider = decider_after(FROZEN)
    decide_all(decider, [moved(f"card:{n}:0", WALLET) for n in (3, 1, 2)])
    events = decider.decide(ReleaseWallet(WALLET, "checked", "bob", AT))
    assert [e.tx_id for e in events if isinstance(e, TransactionReleased)] == ["card:3:0", "card:1:0", "card:2:0"]
    assert decider.held(WALLET) == ()
    assert decide_all(decider, [moved("card:4:0", WALLET)]).outcomes == [Outcome.RECORDED]


def test_one_alert_per_wallet_and_reason_is_open_at_a_time() -> None:
    decider = decider_after()
    (raised,) = decider.decide(alert())
    (other_wallet,) = decider.decide(alert(wallet_id="card:other"))
    (other_reason,) = decider.decide(alert(reason=AlertReason.FROZEN_WALLET_MOVED))
    (joined,) = decider.decide(alert(tx_id="card:tx2:0"))
    assert isinstance(joined, AlertExtended)
    assert joined.case_id == raised.case_id  # type: ignore[union-attr]
    assert len({raised.case_id, other_wallet.case_id, other_reason.case_id}) == 3  # type: ignore[union-attr]


def test_after_the_close_the_next_alert_is_a_new_case_and_the_old_request_gives_nothing() -> None:
    decider = decider_after()
    (raised,) = decider.decide(alert())
    for command in (ReachVerdict(raised.case_id, "fraud", "r", "ann", AT), CloseCase(raised.case_id, "r", "ann", AT)):  # type: ignore[union-attr]
        decider.decide(command)
    assert decider.decide(alert()) == []
    (fresh,) = decider.decide(alert(tx_id="card:tx9:0"))
    assert isinstance(fresh, AlertRaised)


def test_a_reason_that_nobody_knows_is_refused() -> None:
    with pytest.raises(CommandRefused, match="expected a known reason, found 'bribe'"):
        decider_after().decide(alert(reason="bribe"))


def test_labels_of_transactions_are_facts_of_their_own() -> None:
    decider = decider_after()
    assert decider.decide(LabelTransaction("card:1:0", "illicit", "bank", AT)) == [
        TransactionLabelled("card:1:0", Label.ILLICIT, "bank", AT)
    ]
    with pytest.raises(CommandRefused, match="expected licit or illicit"):
        decider.decide(LabelTransaction("card:1:0", "maybe", "bank", AT))


# Laws.

names = st.sampled_from(["card:a", "card:b", "ethereum:a", "", "nobody", "card:\n"])
words = st.sampled_from(["fraud", "illicit", "score", "x" * 2000, "", "\x1b[31m", "'); DROP"])
case_ids = st.builds(lambda w, t: _case_id(w, t), st.sampled_from(["card:a", "card:b"]), st.integers(0, 2)) | words
commands: Any = st.one_of(
    st.builds(DescribeWallet, names, words, st.none() | words, st.none() | words, words, st.just(AT)),
    st.builds(LabelWallet, names, words, words, st.just(AT)),
    st.builds(LabelTransaction, names, words, words, st.just(AT)),
    st.builds(FreezeWallet, names, words, words, st.just(AT)),
    st.builds(ReleaseWallet, names, words, words, st.just(AT)),
    st.builds(
        lambda wallet, reason, score, n: alert(wallet, f"card:t{n}:0", reason=reason, score=score),
        names, words, st.floats(), st.integers(0, 2),
    ),
    st.builds(OpenCase, case_ids, words, st.just(AT)),
    st.builds(AssignCase, case_ids, words, words, st.just(AT)),
    st.builds(ReachVerdict, case_ids, words, words, words, st.just(AT)),
    st.builds(CloseCase, case_ids, words, words, st.just(AT)),
)  # fmt: skip
transactions = st.builds(
    lambda network, n, source, target: moved(f"{network}:{n}:0", source, target),
    st.sampled_from(["card", "ethereum"]), st.integers(0, 5), st.none() | names, st.none() | names,
)  # fmt: skip


def _case_id(wallet: str, number: int) -> str:
    from domain.case import case_id

    return case_id(wallet, AlertReason.SCORE, f"card:t{number}:0")


def _state(decider: Decider) -> Any:
    return decider._wallets, decider._cases, decider._active_case


@settings(max_examples=300, deadline=None)
@given(st.lists(commands | transactions, max_size=30))
def test_replaying_its_events_gives_the_state_and_no_command_gives_an_untyped_error(steps: list[Any]) -> None:
    seen = KnownTransactions()
    live = decider_after(seen=seen)
    happened: list[DomainEvent] = []
    for step in steps:
        if hasattr(step, "record"):
            found = decide_all(live, [step])
            seen.kept.update(found.new_digests)
            happened += [event for _, event in found.events]
            continue
        before = [astuple(wallet) for wallet in live._wallets.values()]
        try:
            happened += live.decide(step)
        except (CommandRefused, InvalidValue):
            assert before == [astuple(wallet) for wallet in live._wallets.values()]
    assert _state(decider_after(*happened)) == _state(live)


@settings(max_examples=100, deadline=None)
@given(st.lists(transactions, max_size=20), st.integers(0, 20))
def test_the_cut_into_batches_changes_no_outcome(found: list[Any], cut: int) -> None:
    def outcomes(parts: list[list[Any]]) -> list[Outcome]:
        seen, all_of = KnownTransactions(), []
        decider = decider_after(WalletFrozen("card:a", "r", "ann", AT), seen=seen)
        for part in parts:
            decisions = decide_all(decider, part)
            seen.kept.update(decisions.new_digests)
            all_of += decisions.outcomes
        return all_of

    assert outcomes([found]) == outcomes([found[:cut], found[cut:]])


# Taking back.


def payload(tx_id: str, what: str) -> TransactionFacts:
    """A transaction whose payload, and so its digest, ends with `what`."""
    return TransactionFacts(tx_id, tx_id.partition(":")[0], WALLET, None, f"payload {what:>8}".encode(), AT)


def void(tx_id: str = "card:1:0", seq: int | None = None) -> VoidTransaction:
    return VoidTransaction(tx_id, seq, "wrong_mapping", None, "ann", AT)


def voided_at(seq: int, *recorded: str) -> KnownTransactions:
    """What is known once `recorded` payloads of card:1:0 stood one after another and the last was voided after `seq`."""
    seen = KnownTransactions()
    for number, what in enumerate(recorded):
        found = decide_all(decider_after(seen=seen), [payload("card:1:0", what)], first_seq=number)
        assert found.outcomes == [Outcome.RECORDED]
        seen.kept.update(found.new_digests)
        decider_after(seen=seen).decide(void())
        seen.kept[b"card:1:0"] = revision.voided(seen.kept[b"card:1:0"], max(seq, number))
    return seen


def test_a_voided_transaction_may_be_recorded_again_with_another_payload_only() -> None:
    decider = decider_after(seen=voided_at(4, "wrong"))
    found = decide_all(decider, [payload("card:1:0", "wrong"), payload("card:1:0", "right"), payload("card:1:0", "right")], first_seq=9)
    assert found.outcomes == [Outcome.DUPLICATE, Outcome.RECORDED, Outcome.DUPLICATE]
    assert revision.seq_of(found.new_digests[b"card:1:0"]) == 9
    assert not revision.is_voided(found.new_digests[b"card:1:0"])


def test_what_stands_is_still_a_conflict_with_another_payload() -> None:
    seen = voided_at(4, "wrong")
    seen.kept.update(decide_all(decider_after(seen=seen), [payload("card:1:0", "right")], first_seq=5).new_digests)
    found = decide_all(decider_after(seen=seen), [payload("card:1:0", "wrong"), payload("card:1:0", "right")])
    assert found.outcomes == [Outcome.CONFLICT, Outcome.DUPLICATE]


@pytest.mark.parametrize(
    ("seen", "command", "reason"),
    [
        (KnownTransactions(), void(), "unknown_transaction"),
        (voided_at(4, "wrong"), void(), "already_voided"),
    ],
    ids=["never recorded", "void already"],
)
def test_only_what_stands_can_be_voided(seen: KnownTransactions, command: VoidTransaction, reason: str) -> None:
    with pytest.raises(CommandRefused) as refused:
        decider_after(seen=seen).decide(command)
    assert refused.value.reason == reason


def test_a_void_of_an_older_revision_leaves_the_one_that_stands() -> None:
    seen = voided_at(4, "wrong")
    seen.kept.update(decide_all(decider_after(seen=seen), [payload("card:1:0", "right")], first_seq=5).new_digests)
    with pytest.raises(CommandRefused) as refused:
        decider_after(seen=seen).decide(void(seq=0))
    assert refused.value.reason == "not_current"
    assert decider_after(seen=seen).decide(void(seq=5)) == [TransactionVoided("card:1:0", "wrong_mapping", None, AT)]


def test_a_transaction_that_waits_cannot_be_voided() -> None:
    seen = KnownTransactions()
    decider = decider_after(FROZEN, seen=seen)
    seen.kept.update(decide_all(decider, [moved("card:1:0", WALLET)]).new_digests)
    with pytest.raises(CommandRefused) as refused:
        decider.decide(void())
    assert refused.value.reason == "held"


facts_of_one = st.lists(st.tuples(st.sampled_from(["aaaaaaaa", "bbbbbbbb", "cccccccc"]), st.booleans()), min_size=1, max_size=8)


@given(facts_of_one, st.randoms(use_true_random=False), st.integers(0, 8))
def test_what_is_kept_follows_from_the_log_in_whatever_order_a_restart_reads_it(
    steps: list[tuple[str, bool]], rng: random.Random, ahead: int
) -> None:
    kept: bytes | None = None
    records: list[tuple[bytes, int]] = []
    voids: list[int] = []
    history: list[bytes | None] = [None]
    seq = -1
    for what, is_void in steps:
        digest = what.encode()
        if is_void and kept is not None and not revision.is_voided(kept):
            kept = revision.voided(kept, seq)
            voids.append(seq)
        elif not is_void and (kept is None or (revision.is_voided(kept) and revision.digest_of(kept) != digest)):
            seq += 1
            kept = digest if kept is None else revision.revised(digest, seq)
            records.append((digest, seq))
        else:
            seq += 1  # another transaction
        history.append(kept)
    # The disk knows some of it already; a restart reads all records, in order of seq, then all voids.
    restored = history[min(ahead, len(history) - 1)]
    for digest, at in records:
        restored = revision.recorded(restored, digest, at)
    for at in voids:
        assert restored is not None
        restored = revision.voided(restored, at)
    assert restored == kept
