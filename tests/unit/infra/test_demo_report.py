"""The report's equation of rows: the reader's count on one side, what the handler says on the other."""

from __future__ import annotations

from typing import Any

from infra.demo_report import accounted

OUTCOMES = {"recorded": 90, "held": 2, "refused": 3, "duplicates": 0, "quarantined": 0, "decided": 40}


def ended(rows_read: int, **refused: int) -> dict[str, Any]:
    return {"rows_read": rows_read, "refused": refused}


def test_an_uninterrupted_run_balances_on_the_readers_own_count() -> None:
    found = accounted({"ingest": ended(100, negative_amount=5)}, [], {"ingest": 95}, 135, OUTCOMES)
    assert found.is_balanced
    assert (found.read, found.read_again, found.elsewhere, found.quarantined, found.reasons) == (100, 0, 0, 5, {"negative_amount": 5})


def test_a_row_that_never_reached_the_log_is_missed() -> None:
    assert not accounted({"ingest": ended(101, negative_amount=5)}, [], {"ingest": 95}, 135, OUTCOMES).is_balanced


def test_rows_of_an_interrupted_attempt_are_counted_in_the_log() -> None:
    outcomes = {**OUTCOMES, "duplicates": 60}
    found = accounted({"ingest.2": ended(100, negative_amount=5)}, ["ingest"], {"ingest": 60, "ingest.2": 95}, 195, outcomes)
    assert found.is_balanced
    assert (found.read, found.read_again, found.elsewhere) == (100, 60, 0)


def test_a_duplicate_is_never_taken_for_a_row_read_again() -> None:
    outcomes = {**OUTCOMES, "recorded": 60, "duplicates": 60}
    assert not accounted({"ingest.2": ended(130, negative_amount=5)}, ["ingest"], {"ingest": 60, "ingest.2": 95}, 195, outcomes).is_balanced


def test_what_others_send_into_the_same_log_stands_apart() -> None:
    outcomes = {**OUTCOMES, "recorded": 97, "quarantined": 3}
    found = accounted({"ingest": ended(100, negative_amount=5)}, [], {"ingest": 95, "mine": 7}, 145, outcomes)
    assert found.is_balanced
    assert found.elsewhere == 10
