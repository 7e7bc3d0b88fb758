"""Kafka behind our ports: topics, the source of the runner, transactions with offsets, and what a reader may see."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from domain import log as domain_log
from domain.errors import Fenced, LogError
from domain.log import NewRecord, Position
from infra.column_consumer import ColumnConsumer
from infra.kafka.admin import TopicAdmin
from infra.kafka.client import Unanswered
from infra.kafka.producer import PlainProducer
from infra.kafka.reading import last_record_ends, read_batches
from infra.kafka.source import KafkaSource
from infra.kafka.transactions import KafkaTransactions
from projections.work import Append


@pytest.fixture(scope="module")
def config(kafka_bootstrap: str) -> dict[str, Any]:
    return {"bootstrap.servers": kafka_bootstrap}


@pytest.fixture(scope="module")
def admin(config: dict[str, Any]) -> TopicAdmin:
    return TopicAdmin(config)


@pytest.fixture
def topic(admin: TopicAdmin) -> str:
    name = f"kafka-{uuid4().hex[:8]}"
    assert admin.create({name: 3}) == [name]
    return name


def values(config: dict[str, Any], admin: TopicAdmin, topic: str, count: int = 1) -> list[bytes | None]:
    """What a reader sees once there are `count`: a commit may be durable a moment before."""
    deadline = time.monotonic() + 180
    while True:
        ends, starts = admin.ends([topic]), admin.starts([topic])
        found = [value for batch in read_batches(config, [topic], {}, ends, starts) for value in batch.values]
        if len(found) >= count or time.monotonic() > deadline:
            return found


def polled(source: KafkaSource, count: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    deadline = time.monotonic() + 180
    while len(found) < count and time.monotonic() < deadline:
        found += [value for batch in source.poll(1000, 0.1) for value in batch.values]
    return found


def append(topic: str, *rows: bytes) -> Append:
    return Append(topic, [None] * len(rows), list(rows), [()] * len(rows))


def test_topics_are_made_once_and_a_foreign_one_is_refused(admin: TopicAdmin, topic: str) -> None:
    assert admin.create({topic: 3}) == []
    assert admin.missing([topic, "nowhere"]) == ["nowhere"]
    with pytest.raises(LogError, match=f"topic {topic}: expected 6 partitions or more, found 3"):
        admin.create({topic: 6})


def test_a_server_that_is_not_there_is_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.kafka.admin.OPERATION_TIMEOUT_S", 0.5)
    with pytest.raises(LogError, match=r"Kafka does not answer: .*`tidemark doctor`"):
        TopicAdmin({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}).missing(["t"])


def test_events_and_position_are_one_step(config: dict[str, Any], admin: TopicAdmin, topic: str) -> None:
    group = f"group-{uuid4().hex[:8]}"
    transactions = KafkaTransactions(config, group, group, (topic,), admin)
    assert transactions.load_position() == {}
    transactions.commit([append(topic, b"1", b"2")], [NewRecord(topic, None, b"3")], {(topic, 0): 7, (topic, 2): 1})
    assert transactions.load_position() == {(topic, 0): 7, (topic, 2): 1}
    assert sorted(values(config, admin, topic, 3), key=str) == [b"1", b"2", b"3"]
    transactions.close()


def test_a_refused_transaction_moves_no_position_and_the_producer_goes_on(config: dict[str, Any], admin: TopicAdmin, topic: str) -> None:
    group = f"group-{uuid4().hex[:8]}"
    transactions = KafkaTransactions(config, group, group, (topic,), admin)
    with pytest.raises(LogError, match="the transaction failed"):
        transactions.commit([append(topic, b"1", b"x" * (64 << 20))], [], {(topic, 0): 7})
    assert transactions.load_position() == {}
    transactions.commit([append(topic, b"2")], [], {(topic, 0): 8})
    assert values(config, admin, topic) == [b"2"]
    transactions.close()


def test_a_fenced_owner_stores_neither_events_nor_position(config: dict[str, Any], admin: TopicAdmin, topic: str) -> None:
    group = f"group-{uuid4().hex[:8]}"
    older = KafkaTransactions(config, group, group, (topic,), admin)
    newer = KafkaTransactions(config, group, group, (topic,), admin)
    with pytest.raises(Fenced):
        older.commit([append(topic, b"zombie")], [], {(topic, 0): 1})
    newer.commit([append(topic, b"1")], [], {(topic, 0): 2})
    assert values(config, admin, topic) == [b"1"]
    assert newer.load_position() == {(topic, 0): 2}
    older.close()
    newer.close()


def test_readers_see_committed_records_alone_and_the_end_leaves_markers_out(config: dict[str, Any], admin: TopicAdmin, topic: str) -> None:
    producer = Producer({**config, "transactional.id": f"open-{uuid4().hex[:8]}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"committed", partition=0)
    producer.commit_transaction(30)
    producer.begin_transaction()
    producer.produce(topic, b"aborted", partition=0)
    producer.flush(30)
    producer.abort_transaction(30)
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    producer.flush(30)
    assert values(config, admin, topic) == [b"committed"]
    assert last_record_ends(config, admin, [topic])[(topic, 0)] == 1
    assert admin.ends([topic])[(topic, 0)] == 4
    producer.abort_transaction(30)


def test_many_aborted_records_do_not_hide_the_last_one(config: dict[str, Any], admin: TopicAdmin, topic: str) -> None:
    producer = Producer({**config, "transactional.id": f"noisy-{uuid4().hex[:8]}"})
    producer.init_transactions(30)
    for ending, count in ((producer.commit_transaction, 3), (producer.abort_transaction, 400)):
        producer.begin_transaction()
        for i in range(count):
            producer.produce(topic, str(i).encode(), partition=1)
        producer.flush(30)
        ending(30)
    assert last_record_ends(config, admin, [topic]) == {(topic, 0): 0, (topic, 1): 3, (topic, 2): 0}


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "in-a-group"])
def test_a_source_reads_each_partition_from_the_position_that_it_is_told(config: dict[str, Any], topic: str, is_alone: bool) -> None:
    producer = Producer(config)
    for partition in range(3):
        for i in range(4):
            producer.produce(topic, f"{partition}/{i}".encode(), partition=partition)
    producer.flush(30)
    source = KafkaSource(config, [topic], f"g-{uuid4().hex[:8]}", "i1", is_alone)
    source.open(lambda: {(topic, 0): 2, (topic, 1): 4}, lambda: None, lambda: None)
    assert sorted(polled(source, 6)) == [b"0/2", b"0/3", b"2/0", b"2/1", b"2/2", b"2/3"]
    assert source.poll(10, 0.1) == []
    source.close()


class _Told:
    """What a source hears of partitions: what Kafka says, until `silent`."""

    def __init__(self, admin: TopicAdmin) -> None:
        self._admin = admin
        self.is_silent = False

    def of(self, topics: Iterable[str], timeout_s: float | None = None) -> list[domain_log.TopicPartition]:
        if self.is_silent:
            raise Unanswered("Kafka does not answer")
        return self._admin.partitions(topics, timeout_s)


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "in-a-group"])
def test_partitions_that_topics_get_are_read_from_their_first_record(
    config: dict[str, Any], admin: TopicAdmin, topic: str, is_alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.kafka.source.LOOK_S", 0.0)
    beside = f"{topic}-beside"
    admin.create({beside: 1})
    told = _Told(admin)
    source = KafkaSource(config, [topic, beside], f"g-{uuid4().hex[:8]}", "i1", is_alone, partitions=told)
    source.open(dict, lambda: None, lambda: None)
    producer = Producer(config)
    producer.produce(topic, b"old", partition=2)
    producer.flush(30)
    assert polled(source, 1) == [b"old"]
    told.is_silent = True
    producer.produce(topic, b"meanwhile", partition=0)
    producer.flush(30)
    assert polled(source, 1) == [b"meanwhile"], "who cannot be told goes on reading what it has"
    told.is_silent = False
    for name, count in ((topic, 5), (beside, 8)):
        admin.grow(name, count)
    fresh = Producer(config)
    for name, count in ((topic, 5), (beside, 8)):
        fresh.produce(name, name.encode(), partition=count - 1)
    fresh.flush(30)
    assert sorted(polled(source, 2)) == sorted([topic.encode(), beside.encode()])
    source.close()


def test_partitions_that_leave_are_announced_so_that_polled_records_can_be_stored(config: dict[str, Any], topic: str) -> None:
    group = f"g-{uuid4().hex[:8]}"
    told: list[str] = []

    def opened(name: str) -> KafkaSource:
        source = KafkaSource(config, [topic], group, name)
        source.open(_position(told, name), lambda: told.append(f"{name} revoked"), lambda: told.append(f"{name} lost"))
        return source

    first = opened("a")
    _until(lambda: "a assigned" in told, first)
    second = opened("b")
    _until(lambda: "b assigned" in told, first, second)
    assert told == ["a assigned", "a revoked", "b assigned"]
    first.close()
    second.close()


def _position(told: list[str], name: str) -> Callable[[], dict[Any, int]]:
    def load() -> dict[Any, int]:
        told.append(f"{name} assigned")
        return {}

    return load


def _until(reached: Callable[[], bool], *sources: KafkaSource) -> None:
    deadline = time.monotonic() + 180
    while not reached():
        assert time.monotonic() < deadline, "the group did not settle"
        for source in sources:
            source.poll(1, 0.05)


def test_a_position_that_the_log_no_longer_holds_is_an_error_never_a_jump(config: dict[str, Any], topic: str) -> None:
    source = KafkaSource(config, [topic], f"g-{uuid4().hex[:8]}", "i1", is_alone=True)
    source.open(lambda: {(topic, 0): 1_000}, lambda: None, lambda: None)
    deadline = time.monotonic() + 180
    with pytest.raises(LogError, match="the log cannot be read"):
        while time.monotonic() < deadline:
            source.poll(10, 0.1)
    source.close()


def test_what_retention_takes_before_it_is_read_is_an_error_never_a_jump(config: dict[str, Any], admin: TopicAdmin, topic: str) -> None:
    producer = PlainProducer(config)
    producer.send(topic, _keys(20), _keys(20))
    producer.flush()
    starts, ends = admin.starts([topic]), admin.ends([topic])
    place = max(ends, key=lambda tp: ends[tp])
    client = AdminClient(config)  # what it was asked for goes with it
    for deleted in client.delete_records([TopicPartition(*place, 1)]).values():
        deleted.result(30)
    with pytest.raises(LogError, match="the log cannot be read"):
        list(read_batches(config, [topic], {}, {place: ends[place]}, starts))
    assert [len(batch) for batch in read_batches(config, [topic], {}, {place: ends[place]}, admin.starts([topic]))] == [ends[place] - 1]


def test_plain_records_are_durable_when_append_returns(config: dict[str, Any], admin: TopicAdmin, topic: str) -> None:
    producer = PlainProducer(config)
    producer.append([NewRecord(topic, b"k", b"1", (("h", b"v"),)), NewRecord(topic, b"k", None)])
    assert values(config, admin, topic, 2) == [b"1", None]
    producer.send(topic, _keys(500), _keys(500))
    producer.flush()
    assert len(values(config, admin, topic, 502)) == 502


def _keys(count: int) -> Sequence[bytes]:
    return [str(i).encode() for i in range(count)]


def test_columns_hold_what_was_sent_whatever_it_was(config: dict[str, Any], admin: TopicAdmin, topic: str) -> None:
    odd: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
        (None, None, []),
        (b"", b"", [("", b"")]),
        (b"\x00\xff", b"\x00" * 300_000, [("a", None), ("a", b"\xff"), ("\u00e9", b"x" * 1000)]),
        (b"k", None, [("seq", (7).to_bytes(8, "big"))]),
    ]
    sent = odd * 300
    producer = Producer({**config, "enable.idempotence": True})
    for at, (key, value, headers) in enumerate(sent):
        producer.produce(topic, value, key, partition=1, headers=headers, timestamp=1_000_000 + at)
        producer.poll(0)
    producer.flush(30)
    batches = list(read_batches(config, [topic], {}, admin.ends([topic]), max_records=500))
    found = [batch.record(i) for batch in batches for i in range(len(batch))]
    assert [(r.key, r.value, list(r.headers)) for r in found] == sent
    assert [(r.topic, r.partition, r.offset) for r in found] == [(topic, 1, i) for i in range(len(sent))]
    assert [seq for batch in batches for seq in batch.seqs().tolist()] == [-1, -1, -1, 7] * 300
    assert [list(batch.headers) for batch in batches] == [[batch.headers[i] for i in range(len(batch))] for batch in batches]


def test_one_poll_keeps_topics_apart_and_each_partition_in_order(config: dict[str, Any], admin: TopicAdmin, topic: str) -> None:
    other = f"{topic}-other"
    admin.create({other: 2})
    producer = Producer(config)
    for i in range(60):
        producer.produce((topic, other)[i % 2], str(i).encode(), partition=i % 4 // 2)
    producer.flush(30)
    found: dict[tuple[str, int], list[bytes | None]] = {}
    for batch in read_batches(config, [topic, other], {}, admin.ends([topic, other])):
        for partition, value in zip(batch.partitions.tolist(), batch.values, strict=True):
            found.setdefault((batch.topic, partition), []).append(value)
    expected = {((topic, other)[k % 2], k // 2): [str(i).encode() for i in range(60) if i % 4 == k] for k in range(4)}
    assert found == expected


def test_a_topic_that_is_not_there_and_an_option_that_is_none_are_named(config: dict[str, Any]) -> None:
    source = KafkaSource(config, ["nowhere"], "g", "i", is_alone=True)
    with pytest.raises(LogError, match="the partitions of nowhere are not known: Broker: Unknown topic"):
        source.open(dict, lambda: None, lambda: None)
    source.close()
    with pytest.raises(LogError, match=r'the Kafka client refuses its options: .*"no.such.option"'):
        KafkaSource({**config, "no.such.option": 1}, ["nowhere"], "g", "i")


def test_what_a_callback_raises_is_raised_where_it_was_polled(config: dict[str, Any], topic: str) -> None:
    def failing() -> Position:
        raise LogError("no position")

    source = KafkaSource(config, [topic], f"g-{uuid4().hex[:8]}", "i1")
    source.open(failing, lambda: None, lambda: None)
    with pytest.raises(LogError, match="no position"):
        polled(source, 1)
    source.close()


def test_a_closed_source_says_so_and_closes_once_more(config: dict[str, Any], topic: str) -> None:
    source = KafkaSource(config, [topic], "g", "i", is_alone=True)
    source.open(dict, lambda: None, lambda: None)
    source.close()
    source.close()
    with pytest.raises(RuntimeError, match="the consumer is closed"):
        source.poll(1, 0.1)


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_a_group_whose_callbacks_assign_nothing_takes_what_is_proposed(config: dict[str, Any], topic: str, strategy: str) -> None:
    producer = Producer(config)
    for partition in range(3):
        producer.produce(topic, str(partition).encode(), partition=partition)
    producer.flush(30)
    group = {"group.id": f"g-{uuid4().hex[:8]}", "auto.offset.reset": "earliest", "partition.assignment.strategy": strategy}
    told: list[tuple[str, list[int]]] = []

    def tells(what: str) -> Callable[[ColumnConsumer, list[TopicPartition]], None]:
        return lambda _, parts: told.append((what, sorted(part.partition for part in parts)))

    consumer = ColumnConsumer({**config, **group})
    consumer.subscribe([topic], tells("assigned"), tells("revoked"))
    found: list[bytes | None] = []
    deadline = time.monotonic() + 180
    while len(found) < 3 and time.monotonic() < deadline:
        found += [value for batch in consumer.poll(10, 0.2, 0.0).batches for value in batch.values]
    consumer.close()
    assert sorted(found, key=str) == [b"0", b"1", b"2"]
    assert told == [("assigned", [0, 1, 2]), ("revoked", [0, 1, 2])]
