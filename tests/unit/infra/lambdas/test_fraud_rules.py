"""The rules over a stream: the same whichever environment judges, whatever fails, and each transaction counted once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from domain.errors import LogError
from domain.policy import NO_POLICY, HeldPolicy, Policy, PolicyError, parse_policy
from domain.values import EPOCH
from infra.lambdas import fraud_rules_parts
from infra.lambdas.fraud_rules import READS_S, FraudRules, RuleAlert, looks_back_s
from infra.lambdas.fraud_rules_parts import LogPolicy
from infra.lambdas.kinesis_ingestion import KinesisRecord
from projections.errors import StoreUnavailable
from schema_registry.catalog import SchemaCatalog
from schema_registry.contracts import CONTROL_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.unit.infra.lambdas.records import ARRIVED

CODEC = RecordCodec(SchemaCatalog.numbered())
SHARD = ("s", "shardId-000000000000")
MANY = {"name": "many", "says": "{count} of them", "per": "source_wallet_id", "within": "1h", "count_at_least": 3, "quiet_s": 1}


def policy(version: int = 1, **rule: Any) -> Policy:
    return parse_policy({"name": "p", "version": version, "rules": [{**MANY, **rule}]})


def record(n: int, data: bytes | None = None) -> KinesisRecord:
    at = ARRIVED + timedelta(minutes=n)
    value = {
        "version": 1, "tx_id": f"bank:{n}:0", "network": "bank", "kind": "payment", "source_wallet_id": f"bank:w{n % 2}", "amount": 5,
        "asset": "EUR", "occurred_at": at.isoformat(),
    }  # fmt: skip
    return KinesisRecord(*SHARD, str(1_000 + n), "k", at, json.dumps(value).encode() if data is None else data)


class Stream:
    """All that outlives an environment: the stream itself, how far it was judged, and the alerts that were taken."""

    def __init__(self, count: int) -> None:
        self.records = [record(n) for n in range(count)]
        self.place: str | None = None
        self.alerts: list[str] = []
        self.is_away = False
        self.reads = 0
        self.past_fails_after: list[int] = []
        self.clock = 0.0

    def between(self, stream: str, shard: str, start: datetime | str, before: str) -> Iterator[KinesisRecord]:
        self.reads += 1
        most = self.past_fails_after.pop(0) if self.past_fails_after else len(self.records)
        for item in self.records:
            is_from = item.arrived_at >= start if isinstance(start, datetime) else int(item.sequence_number) > int(start)
            if is_from and int(item.sequence_number) < int(before):
                if not most:
                    raise StoreUnavailable("Kinesis is busy")
                most -= 1
                yield item

    def load(self, stream: str, shard: str) -> str | None:
        return self.place

    def save(self, stream: str, shard: str, sequence_number: str) -> None:
        self.place = sequence_number

    def publish(self, alerts: Sequence[RuleAlert]) -> None:
        if self.is_away:
            raise StoreUnavailable("SNS is away")
        self.alerts += [alert.effect_id for alert in alerts]

    def environment(self, held: Policy | None = None, since: datetime = EPOCH) -> FraudRules:
        found = HeldPolicy(held or policy(), since)
        return FraudRules(lambda: found, self, self, self, lambda: self.clock)


@pytest.fixture
def once() -> list[str]:
    stream = Stream(12)
    report = stream.environment().handle(stream.records)
    assert (report.judged, report.alerts, dict(report.hits)) == (12, len(stream.alerts), {"many": len(stream.alerts)})
    assert stream.alerts[:2] == ["rule/p@1/bank:4:0/bank:w0", "rule/p@1/bank:5:0/bank:w1"]
    return stream.alerts


@pytest.mark.parametrize("cut", range(1, 12))
def test_another_environment_goes_on_as_if_it_were_the_first(once: list[str], cut: int) -> None:
    stream = Stream(12)
    stream.environment().handle(stream.records[:cut])
    report = stream.environment().handle(stream.records[cut:])
    assert stream.alerts == once and report.read_again == cut


def test_a_warm_environment_reads_nothing_again(once: list[str]) -> None:
    stream = Stream(12)
    warm = stream.environment()
    for item in stream.records:
        warm.handle([item])
    assert stream.alerts == once and stream.reads == 1


def test_one_that_was_passed_over_meanwhile_notices(once: list[str]) -> None:
    stream = Stream(12)
    first, second = stream.environment(), stream.environment()
    first.handle(stream.records[:4])
    second.handle(stream.records[4:8])
    assert first.handle(stream.records[8:]).read_again == 4, "it reads on from where it stood"
    assert stream.alerts == once


@pytest.mark.parametrize("fails", [[0], [2], [2, 0, 1, 1]])
def test_a_past_that_is_cut_off_is_read_on_and_never_taken_for_whole(once: list[str], fails: list[int]) -> None:
    stream = Stream(12)
    fresh, stream.past_fails_after = stream.environment(), list(fails)
    for _ in fails:
        with pytest.raises(StoreUnavailable, match="busy"):
            fresh.handle(stream.records[6:])
    report = fresh.handle(stream.records[6:])
    assert stream.alerts == [alert for alert in once if alert not in ("rule/p@1/bank:4:0/bank:w0", "rule/p@1/bank:5:0/bank:w1")]
    assert report.read_again == 6 - sum(fails)


def test_a_past_too_long_for_one_call_takes_several(once: list[str]) -> None:
    stream = Stream(12)
    fresh = FraudRules(lambda: HeldPolicy(policy(), EPOCH), stream, stream, stream, iter_clock(READS_S / 2))
    calls = 0
    while True:
        calls += 1
        try:
            fresh.handle(stream.records[9:])
            break
        except StoreUnavailable as error:
            assert "reading goes on" in str(error)
    assert calls > 2 and stream.alerts == once[-len(stream.alerts) :] and len(stream.alerts) == 3


def iter_clock(step: float) -> Callable[[], float]:
    """A clock that moves with each look."""
    ticks = count()
    return lambda: next(ticks) * step


def test_what_came_before_the_policy_counts_and_quiets_no_rule() -> None:
    hourly = policy(quiet_s=3_600)
    stream = Stream(10)
    stream.environment(hourly, since=stream.records[8].arrived_at).handle(stream.records[8:])
    assert [alert.split("/")[2] for alert in stream.alerts] == ["bank:8:0", "bank:9:0"]


def test_a_fresh_environment_looks_back_as_far_as_rules_and_their_quiet_do() -> None:
    assert looks_back_s(policy(quiet_s=600)) == 3_600 + 600
    assert looks_back_s(policy(new="network", after=2)) == 86_400


def test_what_is_not_sent_comes_again_and_counts_once(once: list[str]) -> None:
    stream = Stream(12)
    warm = stream.environment()
    warm.handle(stream.records[:3])
    stream.is_away = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            warm.handle(stream.records[3:])
    assert stream.place == stream.records[2].sequence_number
    stream.is_away = False
    warm.handle(stream.records[3:])
    assert stream.alerts == once


def test_a_second_try_of_the_producer_counts_once_and_what_is_no_transaction_is_skipped(once: list[str]) -> None:
    stream = Stream(12)
    step = json.dumps({"version": 1, "event": "page_viewed"}).encode()
    others = [record(20, b"\xff"), record(21, step), record(22, b'{"version": 9}')]
    report = stream.environment().handle([*stream.records, *others, *stream.records[:4]])
    assert (report.judged, report.skipped, report.repeated) == (12, 3, 4) and stream.alerts == once


def test_another_policy_holds_from_the_next_batch_on_and_knows_what_came_before() -> None:
    stream = Stream(6)
    held = [policy()]
    warm = FraudRules(lambda: HeldPolicy(held[-1], EPOCH), stream, stream, stream)
    warm.handle(stream.records[:4])
    assert stream.alerts == []
    held.append(policy(2, count_at_least=2))
    warm.handle(stream.records[4:])
    assert stream.alerts == ["rule/p@2/bank:4:0/bank:w0", "rule/p@2/bank:5:0/bank:w1"]


def test_figures_are_lines_for_the_function_and_for_each_rule() -> None:
    stream = Stream(6)
    lines = [json.loads(line) for line in stream.environment().handle(stream.records).lines(0.5, 1_700_000_000_000)]
    assert (lines[0]["Function"], lines[0]["Judged"], lines[0]["RuleAlerts"], lines[0]["JudgingMs"]) == ("fraud-rules", 6, 2, 500.0)
    assert [(line["Rule"], line["RuleHits"]) for line in lines[1:]] == [("many", 2)]
    assert lines[1]["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Function", "Rule"]]


class Messages:
    """Kafka's consumer as far as the policy needs it: one partition, its records in order; what `later` holds comes afterwards."""

    values: ClassVar[list[bytes]]
    later: ClassVar[list[bytes]]
    first = 0

    def __init__(self, config: Any) -> None:
        self.place = 0

    def list_topics(self, *_: Any) -> Any:
        return SimpleNamespace(topics={CONTROL_EVENTS: SimpleNamespace(partitions={0: None})})

    def get_watermark_offsets(self, *_: Any) -> tuple[int, int]:
        return self.first, len(self.values)

    def assign(self, places: Any) -> None:
        pass

    def position(self, places: Any) -> Any:
        return [SimpleNamespace(partition=0, offset=self.place)]

    def consume(self, most: int, timeout_s: float) -> list[Any]:
        if self.place < len(self.values):
            found, self.place = self.values[self.place :], len(self.values)
        else:
            found, type(self).later = self.later, []
        return [SimpleNamespace(error=lambda: None, value=lambda value=value: value) for value in found]


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> type[Messages]:
    class Found(Messages):
        values: ClassVar[list[bytes]] = []
        later: ClassVar[list[bytes]] = []

    monkeypatch.setattr(fraud_rules_parts, "Consumer", Found)
    return Found


def changed(text: str, minute: int) -> bytes:
    return CODEC.encode("PolicyChanged", {"policy": text, "actor": "maria", "known_at": ARRIVED + timedelta(minutes=minute)})


def held_by(control: type[Messages], clock: Callable[[], float] = lambda: 0.0) -> LogPolicy:
    return LogPolicy({}, CODEC, clock)


def test_the_log_s_last_policy_holds_from_its_time_and_foreign_bytes_are_none(control: type[Messages]) -> None:
    assert held_by(control)() == NO_POLICY
    control.values = [changed(policy(1).to_json(), 1), b"\x00no event", changed(policy(2).to_json(), 2)]
    assert held_by(control)() == HeldPolicy(policy(2), (ARRIVED + timedelta(minutes=2)).astimezone(UTC))


def test_a_change_is_seen_later_and_one_that_cannot_be_read_is_told_of_until_another_comes(control: type[Messages]) -> None:
    clock = [0.0]
    held = held_by(control, lambda: clock[0])
    control.later = [changed('{"name": "of the future"}', 1)]
    assert held() == NO_POLICY
    for clock[0] in (10.0, 20.0):
        with pytest.raises(PolicyError):
            held()
    control.later = [changed(policy(3).to_json(), 3)]
    clock[0] = 30.0
    assert held().policy == policy(3)


def test_where_the_control_topic_begins_later_the_policy_may_be_elsewhere(control: type[Messages]) -> None:
    control.first = 4
    with pytest.raises(LogError, match="begins at 4: a policy set before stands in the archive alone"):
        held_by(control)
