"""The in-memory twin's own habits; what it shares with Kafka is in tests/contracts."""

from __future__ import annotations

from domain.log import NewRecord
from domain.memory_log import MemoryLog


def test_the_clock_stamps_the_records_and_headers_stay() -> None:
    log = MemoryLog(partitions=2, clock_ms=77)
    log.append([NewRecord("t", b"k", b"v", (("seq", b"1"),))])
    (record,) = log.read(["t"], {})
    assert (record.timestamp_ms, record.headers, record.offset) == (77, (("seq", b"1"),), 0)


def test_a_record_without_a_key_goes_to_the_first_partition() -> None:
    log = MemoryLog()
    log.append([NewRecord("t", None, b"1"), NewRecord("t", None, b"2")])
    assert [(r.partition, r.value) for r in log.read(["t"], {})] == [(0, b"1"), (0, b"2")]
