"""How a quarantined record is shown: harmless, and no more of it than was asked for."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from domain.log import Record
from infra.quarantine_replay import as_batch, masked, preview
from projections.quarantine import QuarantineEntry


def entry(payload: bytes | None, key: bytes | None = b"k") -> QuarantineEntry:
    record = Record("transaction-events", 3, 4711, 1_700_000_000_000, key, payload, (("seq", b"\0" * 8),))
    return QuarantineEntry("warehouse", record, "malformed", "what is wrong", 1)


@given(st.binary(max_size=200))
def test_a_preview_is_printable_and_whole_when_asked(payload: bytes) -> None:
    shown = preview(payload, None)
    assert all(character == "\n" or character.isprintable() for character in shown)
    lines = [line for line in shown.split("\n") if line[8:10] == "  "]
    assert b"".join(bytes.fromhex(line[10:57]) for line in lines) == payload


def test_a_preview_is_cut_and_says_so() -> None:
    assert preview(b"x" * 100, 64).endswith("… 36 more bytes")
    assert preview(None) == "(no value)"
    assert preview(b"") == "(empty)"


@given(st.binary(max_size=300), st.binary(max_size=20))
def test_masked_values_are_json_and_hold_the_first_bytes_only(payload: bytes, key: bytes) -> None:
    found = json.loads(json.dumps(masked(entry(payload, key))))
    assert found["payload_hex"] == payload[:64].hex()
    assert found["payload_bytes"] == len(payload)
    assert found["is_whole"] == (len(payload) <= 64)
    assert found["key"].isprintable()
    assert masked(entry(payload, key), is_full=True)["payload_hex"] == payload.hex()


def test_the_record_goes_back_as_it_was_received() -> None:
    found = entry(b"payload")
    assert as_batch(found).record(0) == found.record
