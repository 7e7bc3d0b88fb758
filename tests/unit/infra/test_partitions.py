from __future__ import annotations

from typing import Any

import pytest

from infra.partitions import GrownElsewhere, PartitionBook
from schema_registry.contracts import TRANSACTION_EVENTS, WALLET_EVENTS


class _Admin:
    def __init__(self, found: list[tuple[str, int]]) -> None:
        self.found = found

    def partitions(self, topics: Any, timeout_s: float | None) -> list[tuple[str, int]]:
        return [tp for tp in self.found if tp[0] in topics]


def book(admin: _Admin, *grown: dict[str, int]) -> tuple[PartitionBook, list[dict[str, int]]]:
    """What the log says at each time it is asked; the last answer stands."""
    answers = list(grown) or [{}]
    asked: list[dict[str, int]] = []

    def read() -> dict[str, int]:
        asked.append(answers[min(len(asked), len(answers) - 1)])
        return asked[-1]

    return PartitionBook(admin, read), asked  # type: ignore[arg-type]


def test_what_the_contracts_say_needs_no_look_into_the_log() -> None:
    admin = _Admin([(TRANSACTION_EVENTS, p) for p in range(6)])
    known, asked = book(admin)
    assert known.of([TRANSACTION_EVENTS]) == admin.found
    assert asked == []


def test_what_was_grown_is_found_in_the_log_once() -> None:
    admin = _Admin([(TRANSACTION_EVENTS, p) for p in range(8)])
    known, asked = book(admin, {TRANSACTION_EVENTS: 8})
    assert len(known.of([TRANSACTION_EVENTS])) == len(known.of([TRANSACTION_EVENTS])) == 8
    assert len(asked) == 1


def test_what_somebody_else_has_grown_is_named_until_the_log_takes_it_in() -> None:
    known, _ = book(_Admin([(TRANSACTION_EVENTS, 6)]), {}, {TRANSACTION_EVENTS: 7})
    with pytest.raises(
        GrownElsewhere, match=f"topic {TRANSACTION_EVENTS} has a partition 6, .* `tidemark topics grow {TRANSACTION_EVENTS}"
    ):
        known.of([TRANSACTION_EVENTS])
    assert known.of([TRANSACTION_EVENTS]) == [(TRANSACTION_EVENTS, 6)]


def test_where_a_keys_order_is_its_partitions_there_is_no_taking_in() -> None:
    known, _ = book(_Admin([]))
    with pytest.raises(GrownElsewhere, match="is not to be trusted from there on"):
        known.admit([(WALLET_EVENTS, 6)])


def test_topics_without_a_contract_may_have_any_number() -> None:
    known, asked = book(_Admin([]))
    known.admit([("somebody-elses", 500)])
    assert asked == []
