"""A Lambda event from Kafka, written and read: records by topic and partition, keys and values in base64, headers as bytes.

Amazon MSK and clusters of one's own send the same shape but for the name of the source.

Source: AWS Lambda Developer Guide, "Using Lambda with self-managed Apache Kafka" and "Using Lambda with Amazon MSK".
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from domain.log import Headers, Record

SELF_MANAGED, MSK = "SelfManagedKafka", "aws:kafka"


def event_of(records: Sequence[Record], bootstrap: str) -> dict[str, Any]:
    """The event that hands these records over, each partition's in the order given."""
    by_partition: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_partition.setdefault(f"{record.topic}-{record.partition}", []).append(item_of(record))
    return {"eventSource": SELF_MANAGED, "bootstrapServers": bootstrap, "records": by_partition}


def item_of(record: Record) -> dict[str, Any]:
    """One record of such an event; what it does not have is left out."""
    item: dict[str, Any] = {
        "topic": record.topic, "partition": record.partition, "offset": record.offset,
        "timestamp": record.timestamp_ms, "timestampType": "CREATE_TIME",
        "headers": [{name: _signed(value)} for name, value in record.headers if value is not None],
    }  # fmt: skip
    for name, value in (("key", record.key), ("value", record.value)):
        if value is not None:
            item[name] = base64.b64encode(value).decode()
    return item


def records_of(event: Mapping[str, Any]) -> list[Record]:
    """The records of an event, in order of offset within a partition.

    Raises:
        ValueError: the event is of another source, or malformed.
    """
    source = event.get("eventSource")
    if source not in (SELF_MANAGED, MSK):
        raise ValueError(f"expected an event of {SELF_MANAGED} or {MSK}, found {source!r}")
    return [_record(item) for items in event.get("records", {}).values() for item in items]


def _record(item: Mapping[str, Any]) -> Record:
    key, value = (None if item.get(name) is None else base64.b64decode(item[name], validate=True) for name in ("key", "value"))
    headers: Headers = tuple(
        (name, bytes(b % 256 for b in content)) for header in item.get("headers", ()) for name, content in header.items()
    )
    return Record(item["topic"], item["partition"], item["offset"], item["timestamp"], key, value, headers)


def _signed(value: bytes) -> list[int]:
    """As Java writes bytes: -128 to 127."""
    return [b - 256 if b > 127 else b for b in value]
