"""How a quarantined record is shown: harmless, and no more of it than was asked for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from domain.log import Record
from infra.cli import exits
from infra.cli.app import run
from infra.cli.quarantine_commands import moment
from infra.quarantine_replay import as_batch, masked, preview
from projections.quarantine import QuarantineEntry, StoredPayload


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
def test_masked_values_are_json_and_hold_nothing_of_the_payload_but_size_and_hash(payload: bytes, key: bytes) -> None:
    found = json.loads(json.dumps(masked(entry(payload, key))))
    assert found["payload_hex"] is None and not found["is_whole"]
    assert found["payload_bytes"] == len(payload)
    assert found["payload_sha256"] == hashlib.sha256(payload).hexdigest()
    assert found["key"].isprintable()
    whole = masked(entry(payload, key), is_full=True)
    assert whole["payload_hex"] == payload.hex() and whole["is_whole"]


def test_a_value_kept_elsewhere_is_shown_by_its_address_and_hash() -> None:
    kept = replace(entry(None), stored=StoredPayload("s3://b/k", "ab" * 32, 300_000))
    found = masked(kept)
    assert (found["payload_uri"], found["payload_sha256"], found["payload_bytes"]) == ("s3://b/k", "ab" * 32, 300_000)
    assert not masked(kept, is_full=True)["is_whole"]


def test_a_time_is_iso_or_so_long_ago_and_nothing_else() -> None:
    now = datetime(2026, 11, 27, 12, tzinfo=UTC)
    assert moment("2h", now) == datetime(2026, 11, 27, 10, tzinfo=UTC)
    assert moment("2026-11-27T10:00") == datetime(2026, 11, 27, 10, tzinfo=UTC)
    assert moment("2026-11-27T10:00+02:00") == datetime(2026, 11, 27, 8, tzinfo=UTC)
    for text in ("", "yesterday", "2x", "-2h", "999999d", "٢h"):
        with pytest.raises(typer.BadParameter):
            moment(text, datetime(1, 1, 2, tzinfo=UTC))


def test_dropping_needs_a_place_or_a_filter_and_a_reason() -> None:
    assert run(["quarantine", "drop", "--because", "x"]) == exits.USAGE
    assert run(["quarantine", "drop", "commands/0/1"]) == exits.USAGE
    assert run(["quarantine", "drop", "commands/0/1", "--because", " "]) == exits.USAGE


def test_the_record_goes_back_as_it_was_received() -> None:
    found = entry(b"payload")
    assert as_batch(found).record(0) == found.record
