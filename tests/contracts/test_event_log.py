"""What every event log must do, run against the one in memory and the one on Kafka."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from uuid import uuid4

import pytest

from domain.errors import Fenced, LogError
from domain.log import EventLog, NewRecord, Position, Record
from domain.memory_log import MemoryLog
from infra.kafka.admin import TopicAdmin
from infra.kafka.transactions import KafkaEventLog


def seen(log: EventLog, topic: str, count: int, start: Position | None = None) -> list[Record]:
    """The records of a topic once there are as many: a commit may be durable a moment before readers see it."""
    deadline = time.monotonic() + 180
    while len(found := list(log.read([topic], start or {}))) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


class EventLogContract(ABC):
    """Subclasses give a log and a fresh topic of six partitions."""

    @pytest.fixture
    @abstractmethod
    def log(self) -> EventLog: ...

    @pytest.fixture
    def topic(self) -> str:
        return f"contract-{uuid4().hex[:8]}"

    def test_what_is_appended_is_read_as_it_was(self, log: EventLog, topic: str) -> None:
        new = NewRecord(topic, b"k", b"\x00\xff", (("seq", b"\x01"), ("empty", None)))
        log.append([new, NewRecord(topic, None, None)])
        found = {record.key: record for record in seen(log, topic, 2)}
        kept = found[b"k"]
        assert (kept.topic, kept.value, kept.headers) == (topic, b"\x00\xff", new.headers)
        assert (found[None].value, found[None].headers) == (None, ())

    def test_records_of_one_key_keep_their_order_and_their_partition(self, log: EventLog, topic: str) -> None:
        keys = [f"key-{i % 7}".encode() for i in range(70)]
        for start in range(0, 70, 10):
            log.append([NewRecord(topic, key, str(start + i).encode()) for i, key in enumerate(keys[start : start + 10])])
        found = seen(log, topic, 70)
        assert len(found) == 70
        for key in set(keys):
            mine = [record for record in found if record.key == key]
            assert [int(record.value or b"") for record in mine] == [i for i in range(70) if keys[i] == key]
            assert len({record.partition for record in mine}) == 1
            assert [record.offset for record in mine] == sorted(record.offset for record in mine)

    def test_an_append_over_topics_and_partitions_is_whole(self, log: EventLog, topic: str) -> None:
        log.append([NewRecord(topic, str(i).encode(), b"v") for i in range(50)])
        found = seen(log, topic, 50)
        assert (len(found), len({record.partition for record in found})) == (50, 6)

    def test_the_end_is_where_a_reader_arrives(self, log: EventLog, topic: str) -> None:
        assert set(log.end([topic]).values()) <= {0}
        log.append([NewRecord(topic, b"a", b"1"), NewRecord(topic, b"b", b"2")])
        seen(log, topic, 2)
        end = log.end([topic])
        assert set(end) == {(topic, p) for p in range(6)}
        assert list(log.read([topic], end)) == []
        log.append([NewRecord(topic, b"a", b"3")])
        assert [record.value for record in seen(log, topic, 1, end)] == [b"3"]

    def test_a_reader_goes_on_from_any_position(self, log: EventLog, topic: str) -> None:
        log.append([NewRecord(topic, b"same", str(i).encode()) for i in range(10)])
        found = seen(log, topic, 10)
        place = (topic, found[0].partition)
        for cut in (0, 3, 9):
            assert list(log.read([topic], {place: found[cut].offset})) == found[cut:]
        assert list(log.read([topic], {place: found[9].offset + 1})) == []

    def test_a_read_ends_where_the_log_ended_when_it_began(self, log: EventLog, topic: str) -> None:
        log.append([NewRecord(topic, b"a", b"1")])
        seen(log, topic, 1)
        reading = log.read([topic], {})
        assert next(reading).value == b"1"
        log.append([NewRecord(topic, b"a", b"2")])
        assert [record.value for record in reading] == []

    def test_appending_twice_gives_two_records_and_nothing_gives_none(self, log: EventLog, topic: str) -> None:
        log.append([])
        for _ in range(2):
            log.append([NewRecord(topic, b"a", b"1")])
        assert [record.value for record in seen(log, topic, 2)] == [b"1", b"1"]


class TestMemoryLog(EventLogContract):
    @pytest.fixture
    def log(self) -> EventLog:
        return MemoryLog()


class TestKafkaEventLog(EventLogContract):
    @pytest.fixture(scope="class")
    def config(self, kafka_bootstrap: str) -> dict[str, str]:
        return {"bootstrap.servers": kafka_bootstrap}

    @pytest.fixture(scope="class")
    def admin(self, config: dict[str, str]) -> TopicAdmin:
        return TopicAdmin(config)

    @pytest.fixture
    def topic(self, admin: TopicAdmin) -> Iterator[str]:
        name = f"contract-{uuid4().hex[:8]}"
        admin.create({name: 6})
        yield name

    @pytest.fixture(scope="class")
    def writer_id(self) -> str:
        return f"writer-{uuid4().hex[:8]}"

    @pytest.fixture(scope="class")
    def log(self, config: dict[str, str], admin: TopicAdmin, writer_id: str) -> EventLog:
        return KafkaEventLog(config, writer_id, admin)

    def test_an_append_that_the_log_refuses_leaves_nothing_and_the_next_one_works(self, log: EventLog, topic: str) -> None:
        with pytest.raises(LogError):
            log.append([NewRecord(topic, b"a", b"1"), NewRecord(topic, b"b", b"x" * (64 << 20)), NewRecord(topic, b"c", b"3")])
        log.append([NewRecord(topic, b"a", b"after")])
        assert [record.value for record in seen(log, topic, 1)] == [b"after"]

    def test_a_newer_owner_fences_the_older_one(self, config: dict[str, str], admin: TopicAdmin, topic: str) -> None:
        name = f"owner-{uuid4().hex[:8]}"
        older = KafkaEventLog(config, name, admin)
        older.append([NewRecord(topic, b"a", b"older")])
        newer = KafkaEventLog(config, name, admin)
        newer.append([NewRecord(topic, b"a", b"newer")])
        with pytest.raises(Fenced, match="has taken over: this one stops"):
            older.append([NewRecord(topic, b"a", b"zombie"), NewRecord(topic, b"b", b"zombie")])
        newer.append([NewRecord(topic, b"a", b"still")])
        assert [record.value for record in seen(newer, topic, 3)] == [b"older", b"newer", b"still"]
