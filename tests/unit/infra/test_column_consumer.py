"""What a consumer asks before it reads, without a server."""

from __future__ import annotations

import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from domain.errors import LogError
from infra import column_consumer
from infra.column_consumer import ColumnConsumer


def test_the_leader_is_asked_for_where_the_log_must_say_where_a_partition_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unanswered(handle: int, topic: str, timeout_s: float) -> int:
        asked.append(topic)
        raise LogError("nobody answers")  # what is assigned then waits for a leader, as ever

    monkeypatch.setattr(column_consumer, "partition_count", unanswered)
    consumer = ColumnConsumer({"bootstrap.servers": "127.0.0.1:9", "group.id": "g", "log_level": 0})
    begins, placed = TopicPartition("begins", 0, OFFSET_BEGINNING), TopicPartition("placed", 0, 5)
    consumer.assign([begins, placed])
    consumer.incremental_assign([TopicPartition("begins", 1, OFFSET_BEGINNING), TopicPartition("placed", 1, 0)])
    consumer.close()
    assert asked == ["begins", "begins"]
