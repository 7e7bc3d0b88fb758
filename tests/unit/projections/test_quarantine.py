"""Quarantine: the whole record, where it stood and why; open until it is applied."""

from __future__ import annotations

import io

import fastavro
import pytest

from domain.log import NewRecord, Record
from projections.protocol import Rejection
from projections.quarantine import (
    INLINE_BYTES,
    QuarantineEntry,
    as_record,
    decoded,
    dropped_record,
    offloaded,
    quarantine_records,
    replay_place,
    replayed_places,
    replayed_record,
    state_of,
)
from schema_registry.contracts import QUARANTINE_EVENTS, contracts
from schema_registry.wire import frame
from tests.unit.domain.facts import AT
from tests.unit.projections.fakes import CATALOG, CODEC, T, batch_of, record

POISON = Record(T, 3, 41, 1234, None, b"\x00\xff'; DROP TABLE--\x1b[31m", (("seq", b"12345678"), ("h", None)))
ENTRY = QuarantineEntry("warehouse", POISON, "malformed", "a value outside its type", 1)


def opened(*records: object) -> dict[tuple[str, str, int, int], QuarantineEntry]:
    kept = [Record(new.topic, 0, i, 0, new.key, new.value) for i, new in enumerate(records)]  # type: ignore[attr-defined]
    return state_of(decoded(CODEC, kept)).entries


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


def after(*records: NewRecord) -> tuple[set[object], set[object]]:
    kept = [Record(new.topic, 0, i, i, new.key, new.value) for i, new in enumerate(records)]
    found = state_of(decoded(CODEC, kept))
    return set(found.entries), set(found.dropped)


def test_a_drop_closes_an_entry_and_is_remembered() -> None:
    put, dropped = as_record(CODEC, ENTRY), dropped_record(CODEC, ENTRY.key, "ticket 1", "ann", AT)
    applied = replayed_record(CODEC, ENTRY.key, "applied", "ann", AT)
    assert after(put, dropped) == (set(), {ENTRY.key})
    assert after(dropped) == (set(), set()), "what is not there cannot be given up"
    assert after(put, applied, dropped) == (set(), set()), "what the store has got cannot be given up"
    assert after(put, dropped, applied) == (set(), set()), "the store has it: that is what counts"
    assert after(put, dropped, put) == ({ENTRY.key}, set())
    assert put.key == dropped.key


class MemoryPayloads:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, name: str, payload: bytes) -> str:
        self.kept[name] = payload
        return f"s3://b/{name}"

    def get(self, uri: str) -> bytes | None:
        return self.kept.get(uri.removeprefix("s3://b/"))


@pytest.mark.parametrize(("size", "is_kept_elsewhere"), [(INLINE_BYTES, False), (INLINE_BYTES + 1, True)])
def test_a_large_value_is_kept_elsewhere_under_its_place_and_hash(size: int, is_kept_elsewhere: bool) -> None:
    store = MemoryPayloads()
    large = QuarantineEntry("warehouse", Record(T, 3, 41, 1, b"k", b"x" * size, (("h", b"1"),)), "malformed", "m", 1)
    (new,) = offloaded(CODEC, [as_record(CODEC, large)], store)
    (found,) = opened(new).values()
    assert (found.stored is not None) == is_kept_elsewhere
    assert found.key == large.key and found.record.headers == large.record.headers
    if found.stored is None:
        assert found == large and not store.kept
    else:
        assert found.record.value is None and found.stored.size == size and found.stored.sha256 in found.stored.uri
        assert store.get(found.stored.uri) == large.record.value
        assert len(new.value or b"") < 1000


def test_an_entry_of_version_1_is_read_as_it_was() -> None:
    schema = contracts()["RecordQuarantined"].schemas[0]
    out = io.BytesIO()
    value = CODEC.decode(as_record(CODEC, ENTRY).value)[1]
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {f["name"]: value[f["name"]] for f in schema["fields"]})
    first = min(CATALOG.ids_of("RecordQuarantined"))
    old = NewRecord(QUARANTINE_EVENTS, b"k", frame(first, out.getvalue()))
    assert opened(old) == {ENTRY.key: ENTRY}


def test_a_replay_has_a_checkpoint_of_its_own_that_names_the_record() -> None:
    position = {(T, 0): 5, replay_place("a/b", 3, 41): 1}
    assert list(replayed_places(position)) == [("a/b", 3, 41)]
