"""Rules as a worker: restored from the log they go on as if they had never stopped, and ask once for each wallet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from domain.log import Position, Record
from domain.policy import HeldPolicy, Policy, PolicyReplaced, parse_policy
from domain.rules import Hit
from domain.values import EPOCH
from infra.rule_alerts import RuleAlerts, rule_requests
from projections.decoding import decode
from projections.records import RecordBatch, seq_header
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.unit.domain.facts import AT, transaction

CATALOG = SchemaCatalog.numbered()
CODEC = RecordCodec(CATALOG)
MANY = {"name": "many", "says": "{count} of them", "per": "source_wallet_id", "within": "1h", "count_at_least": 3, "quiet": "1s"}
FIRST = {"name": "first", "says": "its third", "per": "source_wallet_id", "new": "network", "after": 0}


def policy(*rules: dict[str, Any]) -> Policy:
    return parse_policy({"name": "p", "version": 4, "rules": list(rules)})


def appended_ms(seq: int) -> int:
    return round((AT + timedelta(minutes=seq, seconds=1)).timestamp() * 1000)


def records(count: int) -> list[Record]:
    """Transactions of two wallets, one a minute, spread over two partitions."""
    found = []
    offsets = [0, 0]
    for seq in range(count):
        partition = seq % 2
        fact = transaction(tx_id=f"card:{seq}:0", source_wallet_id=f"card:w{seq % 2}", occurred_at=AT + timedelta(minutes=seq))
        value, headers = CODEC.encode_event(fact), (seq_header(seq),)
        found.append(Record(TRANSACTION_EVENTS, partition, offsets[partition], appended_ms(seq), b"k", value, headers))
        offsets[partition] += 1
    return found


def reader(log: list[Record]) -> Any:
    def read(topics: Sequence[str], start: Position, end: Position) -> Iterator[RecordBatch]:
        part = [record for record in log if record.offset < end.get((record.topic, record.partition), 0)]
        if part:
            yield RecordBatch.of(part)

    return read


def asked(worker: RuleAlerts, log: list[Record]) -> list[tuple[str, str, str]]:
    if not log:
        return []
    batch = RecordBatch.of(log)
    events, _ = decode(ColumnCodec(CATALOG, worker.reads), [batch])
    appends, rejected = worker.process(events, [batch])
    assert not rejected
    found = [CODEC.decode(value)[1] for append in appends for value in append.values if value is not None]
    return [(request["tx_id"], request["wallet_id"], request["explanation"]) for request in found]


def started(log: list[Record], committed: Position, *rules: dict[str, Any], since: datetime = EPOCH) -> tuple[RuleAlerts, Position]:
    worker = RuleAlerts(CATALOG, HeldPolicy(policy(*rules), since))
    return worker, worker.restore(reader(log), committed, lambda: ends(log))


def ends(log: list[Record]) -> Position:
    found: dict[tuple[str, int], int] = {}
    for record in log:
        found[record.topic, record.partition] = record.offset + 1
    return found


def test_it_asks_for_the_wallet_with_rule_policy_and_sentence() -> None:
    worker, _ = started([], {}, MANY)
    log = records(6)
    assert asked(worker, log) == [("card:4:0", "card:w0", "many: 3 of them"), ("card:5:0", "card:w1", "many: 3 of them")]
    assert worker.next_seq() == 6


@pytest.mark.parametrize("cut", range(13))
def test_stopped_anywhere_it_says_the_same(cut: int) -> None:
    log = records(12)
    whole, _ = started([], {}, MANY, FIRST)
    once = asked(whole, log)
    before, _ = started([], {}, MANY, FIRST)
    first = asked(before, log[:cut])
    after, position = started(log, ends(log[:cut]) or {(TRANSACTION_EVENTS, 0): 0}, MANY, FIRST)
    assert after.next_seq() == cut and position == (ends(log[:cut]) or {(TRANSACTION_EVENTS, 0): 0})
    assert first + asked(after, log[cut:]) == once


def test_the_first_start_sees_what_is_there_and_says_nothing_of_it() -> None:
    log = records(8)
    worker, position = started(log, {}, MANY)
    assert position == ends(log) and worker.next_seq() == 8
    assert asked(worker, records(9)[8:]) == [("card:8:0", "card:w0", "many: 5 of them")]


def test_a_partition_that_became_readable_too_early_is_read_again() -> None:
    log = records(8)
    early = [record for record in log if record.partition == 0 or record.offset < 2]  # seq 5 and 7 are still to come
    worker, position = started(early, {}, MANY)
    assert worker.next_seq() == 5
    assert position == {(TRANSACTION_EVENTS, 0): 3, (TRANSACTION_EVENTS, 1): 2}
    rest = [record for record in log if record.offset >= position[record.topic, record.partition]]
    assert [tx_id for tx_id, *_ in asked(worker, rest)] == ["card:5:0", "card:6:0", "card:7:0"]


def test_another_policy_ends_it_before_it_judges() -> None:
    replaced = [False, True]
    worker = RuleAlerts(CATALOG, HeldPolicy(policy(MANY), EPOCH), lambda: replaced.pop(0))
    worker.restore(reader([]), {}, dict)
    asked(worker, records(2))
    with pytest.raises(PolicyReplaced, match="p@4"):
        asked(worker, records(4)[2:])
    assert worker.next_seq() == 2


def test_without_rules_it_keeps_its_place_and_decodes_nothing() -> None:
    worker, position = started(records(4), {})
    assert worker.reads == {} and worker.next_seq() == 4 and position == ends(records(4))
    batch = RecordBatch.of(records(6)[4:])
    assert worker.process(decode(ColumnCodec(CATALOG, {}), [batch])[0], [batch]) == ([], [])
    assert worker.next_seq() == 6


def test_several_rules_of_one_wallet_are_one_request() -> None:
    hits = [Hit("a", "w", "one"), Hit("b", "v", "two"), Hit("c", "w", "three")]
    first, second = rule_requests(policy(), hits, "tx", 7, 1_000)
    assert (first.wallet_id, first.rules, first.explanation) == ("w", "a,c", "a: one; c: three")
    assert (second.wallet_id, second.rules, second.policy, second.tx_seq) == ("v", "b", "p@4", 7)
    assert np.isclose(first.score, 1.0) and first.reason == "rule"


def test_what_nobody_was_told_of_quiets_no_rule() -> None:
    log, hourly = records(10), {**MANY, "quiet": "1h"}
    policy_set = EPOCH + timedelta(milliseconds=appended_ms(8))
    # At seq 4 and 5 the rule would have spoken, had the policy been there: it speaks of both wallets with the first that comes.
    worker, _ = started(log[:8], ends(log[:8]), hourly, since=policy_set)
    assert [tx_id for tx_id, *_ in asked(worker, log[8:])] == ["card:8:0", "card:9:0"]
    told, _ = started(log[:8], ends(log[:8]), hourly)
    assert asked(told, log[8:]) == [], "told of under this policy: quiet for an hour, after a restart too"


def test_a_transaction_that_is_dated_ahead_counts_as_of_when_the_log_had_it() -> None:
    def placed(seq: int, minute: int) -> Record:
        fact = transaction(tx_id=f"card:{seq}:0", source_wallet_id="card:w", occurred_at=AT + timedelta(minutes=minute))
        at_ms = round((AT + timedelta(minutes=seq * 100)).timestamp() * 1000)
        return Record(TRANSACTION_EVENTS, 0, seq, at_ms, b"k", CODEC.encode_event(fact), (seq_header(seq),))

    worker, _ = started([], {}, MANY)
    ahead = [placed(0, 1_400), *(placed(seq, seq * 100) for seq in range(1, 6))]
    assert asked(worker, ahead) == [], "three hours apart each, but for one that says it is of tomorrow"


def test_names_of_rules_are_cut_at_a_comma() -> None:
    hits = [Hit(f"{'r' * 60}{n}", "w", "x") for n in range(30)]
    (request,) = rule_requests(policy(), hits, "tx", 7, 1_000)
    assert request.rules is not None and set(request.rules.split(",")) < {hit.rule for hit in hits} and len(request.rules) <= 1_024
