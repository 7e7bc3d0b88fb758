"""Quarantine: the whole record, where it stood and why; open until it is applied."""

from __future__ import annotations

import pytest

from domain.log import Record
from projections.protocol import Rejection
from projections.quarantine import QuarantineEntry, as_record, decoded, open_entries, quarantine_records, replayed_record
from schema_registry.contracts import QUARANTINE_EVENTS
from tests.unit.domain.facts import AT
from tests.unit.projections.fakes import CODEC, T, batch_of, record

POISON = Record(T, 3, 41, 1234, None, b"\x00\xff'; DROP TABLE--\x1b[31m", (("seq", b"12345678"), ("h", None)))
ENTRY = QuarantineEntry("warehouse", POISON, "malformed", "a value outside its type", 1)


def opened(*records: object) -> dict[tuple[str, str, int, int], QuarantineEntry]:
    kept = [Record(new.topic, 0, i, 0, new.key, new.value) for i, new in enumerate(records)]  # type: ignore[attr-defined]
    return open_entries(decoded(CODEC, kept))


@pytest.mark.parametrize("payload", [POISON.value, None, b"", b"x" * 100_000], ids=["noise", "null", "empty", "large"])
def test_an_entry_holds_the_record_byte_for_byte(payload: bytes | None) -> None:
    kept = QuarantineEntry("warehouse", Record(T, 3, 41, 1234, b"k", payload, POISON.headers), "malformed", "m", 2)
    new = as_record(CODEC, kept)
    assert new.topic == QUARANTINE_EVENTS
    assert opened(new) == {("warehouse", T, 3, 41): kept}


def test_a_rejection_finds_its_record_in_the_batches() -> None:
    found = quarantine_records(
        CODEC, "graph", [batch_of(record(0), record(1)), batch_of(record(1, partition=1))], [Rejection(T, 1, 1, "why", "because")]
    )
    ((key, entry),) = opened(*found).items()
    assert key == ("graph", T, 1, 1)
    assert (entry.reason, entry.message, entry.attempt) == ("why", "because", 1)
    assert entry.record.value == record(1).value


def test_the_same_record_put_twice_is_one_entry() -> None:
    assert list(opened(as_record(CODEC, ENTRY), as_record(CODEC, ENTRY))) == [ENTRY.key]


def test_projections_keep_their_own_entries_of_one_record() -> None:
    other = QuarantineEntry("graph", POISON, "malformed", "m", 1)
    assert set(opened(as_record(CODEC, ENTRY), as_record(CODEC, other))) == {ENTRY.key, other.key}


def test_only_a_replay_that_was_applied_closes_an_entry() -> None:
    put = as_record(CODEC, ENTRY)
    assert set(opened(put, replayed_record(CODEC, ENTRY.key, "failed", "ann", AT))) == {ENTRY.key}
    assert opened(put, replayed_record(CODEC, ENTRY.key, "applied", "ann", AT)) == {}
    assert set(opened(put, replayed_record(CODEC, ENTRY.key, "applied", "ann", AT), put)) == {ENTRY.key}


def test_an_entry_and_its_replays_share_a_key_so_that_their_order_holds() -> None:
    assert as_record(CODEC, ENTRY).key == replayed_record(CODEC, ENTRY.key, "applied", "ann", AT).key


def test_a_message_of_any_length_is_cut() -> None:
    long = QuarantineEntry("warehouse", POISON, "malformed", "m" * 100_000, 1)
    assert len(opened(as_record(CODEC, long))[long.key].message) == 1000
