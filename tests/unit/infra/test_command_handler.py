"""The handler's own bookkeeping, without a log: order, keys, duplicates and results across the parts of one Kafka transaction."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.errors import LogError
from infra import command_handler
from infra.command_handler import CommandHandler
from infra.seen_transactions import SeenTransactions
from projections.protocol import EventBatch
from projections.records import RecordBatch
from projections.work import Append
from schema_registry.catalog import SchemaCatalog
from schema_registry.contracts import COMMAND_RESULTS, COMMANDS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.unit.domain.facts import AT, transaction

CODEC = RecordCodec(SchemaCatalog.numbered())
ARRIVED_MS = int(AT.timestamp() * 1000)


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[CommandHandler]:
    seen = SeenTransactions(tmp_path, "log")
    made = CommandHandler(SchemaCatalog.numbered(), seen, frozenset({"card"}), dict)
    made.restore(lambda topics, position: iter(()))
    yield made
    seen.close()


def moved(number: int, **changes: Any) -> bytes:
    return CODEC.encode_event(transaction(**{"tx_id": f"ethereum:0x{number}:0", **changes}))


def handled(handler: CommandHandler, *values: bytes, first_offset: int = 0) -> tuple[Append | None, list[dict[str, Any]]]:
    """The transactions appended, and the results."""
    n = len(values)
    offsets, arrived = np.arange(first_offset, first_offset + n), np.full(n, ARRIVED_MS)
    batch = RecordBatch(COMMANDS, np.zeros(n, np.int32), offsets, arrived, [None] * n, list(values), [None] * n)
    appends, rejections = handler.process(EventBatch({}), [batch])
    assert rejections == []
    by_topic = {append.topic: append for append in appends}
    return by_topic.get(TRANSACTION_EVENTS), [CODEC.decode(value)[1] for value in by_topic[COMMAND_RESULTS].values]


def wait_for_answer(handler: CommandHandler) -> None:
    """The question for the log's end is asked in a thread."""
    assert handler._asked is not None
    wait([handler._asked], timeout=5)


def seqs(append: Append | None) -> list[int]:
    assert append is not None
    return [int.from_bytes(value or b"", "big") for ((_, value),) in append.headers]


def test_bytes_pass_through_with_the_wallet_as_key_and_the_next_seq(handler: CommandHandler) -> None:
    values = [moved(1), moved(2, source_wallet_id=None)]
    appended, (result,) = handled(handler, *values)
    assert appended is not None
    assert appended.values == values
    assert appended.keys == [b"ethereum:0xa", b"ethereum:0x2:0"]
    assert seqs(appended) == [0, 1]
    assert (result["first_seq"], result["next_seq"], result["recorded"]) == (0, 2, 2)


def test_what_is_no_news_gets_no_seq_and_leaves_none_out(handler: CommandHandler) -> None:
    twice, other = moved(1), moved(1, asset="BTC")
    appended, (result,) = handled(handler, twice, twice, other, moved(2, asset=""), moved(3))
    assert appended is not None
    assert appended.values == [twice, moved(3)]
    assert seqs(appended) == [0, 1]
    assert (result["recorded"], result["duplicates"]) == (2, 1)
    assert [(refusal["offset"], refusal["reason"]) for refusal in result["refusals"]] == [
        (3, "invalid_asset"),
        (2, "conflicting_duplicate"),
    ]


def test_the_same_facts_from_another_origin_are_a_duplicate_after_the_commit_too(handler: CommandHandler) -> None:
    first = transaction()
    handled(handler, CODEC.encode_event(first))
    handler.committed()
    again = replace(first, origin=replace(first.origin, row=first.origin.row + 7))
    appended, (result,) = handled(handler, CODEC.encode_event(again), first_offset=1)
    assert appended is None
    assert result["duplicates"] == 1


def test_more_commands_than_one_result_tells_of_give_results_that_follow_each_other(
    handler: CommandHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_handler, "RESULT_COMMANDS", 2)
    appended, results = handled(handler, moved(1), moved(2, asset=""), moved(2), moved(1), moved(3), first_offset=10)
    assert seqs(appended) == [0, 1, 2]
    places = [(r["first_offset"], r["next_offset"], r["first_seq"], r["next_seq"], r["duplicates"]) for r in results]
    assert places == [(10, 12, 0, 1, 0), (12, 14, 1, 2, 1), (14, 15, 2, 3, 0)]
    assert [refusal["offset"] for result in results for refusal in result["refusals"]] == [11]


def test_the_disk_learns_an_end_of_the_log_only_from_before_a_transaction_that_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_handler, "POSITION_EVERY_S", 0.0)
    ends = iter([{(TRANSACTION_EVENTS, 0): 1}, {(TRANSACTION_EVENTS, 0): 2}, {(TRANSACTION_EVENTS, 0): 3}])
    seen = SeenTransactions(tmp_path, "log")
    handler = CommandHandler(SchemaCatalog.numbered(), seen, frozenset({"card"}), lambda: next(ends))
    handler.restore(lambda topics, position: iter(()))
    kept = []
    for number in range(3):
        handled(handler, moved(number), first_offset=number)
        handler.committed()
        kept.append(seen.state())
        wait_for_answer(handler)
    assert kept == [(1, {}), (2, {(TRANSACTION_EVENTS, 0): 1}), (3, {(TRANSACTION_EVENTS, 0): 2})]
    seen.close()


def test_an_end_that_cannot_be_read_stops_the_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> Any:
        raise LogError("down")

    monkeypatch.setattr(command_handler, "POSITION_EVERY_S", 0.0)
    seen = SeenTransactions(tmp_path, "log")
    handler = CommandHandler(SchemaCatalog.numbered(), seen, frozenset({"card"}), unreadable)
    handler.restore(lambda topics, position: iter(()))
    handled(handler, moved(1))
    handler.committed()
    wait_for_answer(handler)
    with pytest.raises(LogError, match="down"):
        handled(handler, moved(2), first_offset=1)
    seen.close()
