"""Batches for the warehouse's tests: events encoded and decoded by the real codec, at given places in the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from domain.events import (
    Origin,
    Payment,
    TransactionKind,
    TransactionRecorded,
    TransactionStatus,
    WalletDescribed,
    WalletKind,
)
from domain.log import Position
from projections.protocol import EventBatch
from projections.warehouse.facts import fields_read
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import TOPIC_BY_EVENT_TYPE
from schema_registry.record_codec import RecordCodec

CATALOG = SchemaCatalog.numbered()
START = datetime(2020, 2, 28, 22, 30, tzinfo=UTC)
ARRIVED_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Placed:
    """An event (a domain dataclass, or an event type and its record) at its place in the log."""

    event: Any
    partition: int
    offset: int

    @property
    def event_type(self) -> str:
        return self.event[0] if isinstance(self.event, tuple) else type(self.event).__name__

    @property
    def topic(self) -> str:
        return TOPIC_BY_EVENT_TYPE[self.event_type]


def batch_of(placed: Iterable[Placed]) -> EventBatch:
    """What the runner would hand over for these records."""
    codec, columns = RecordCodec(CATALOG), ColumnCodec(CATALOG, fields_read())
    by_type: dict[str, list[Placed]] = {}
    for one in sorted(placed, key=lambda one: (one.topic, one.partition, one.offset)):
        by_type.setdefault(one.event_type, []).append(one)
    tables = {}
    for event_type, records in by_type.items():
        values = [
            codec.encode(*one.event) if isinstance(one.event, tuple) else codec.encode_event(one.event)
            for one in records
        ]  # fmt: skip
        decoded = columns.decode(values)
        assert not decoded.failures
        table = decoded.tables[event_type].table
        n = len(records)
        coordinates = {
            "_topic": pa.array([one.topic for one in records], pa.string()),
            "_partition": pa.array([one.partition for one in records], pa.int32()),
            "_offset": pa.array([one.offset for one in records], pa.int64()),
            "_seq": pa.array([one.offset * 6 + one.partition for one in records], pa.int64()),
            "_timestamp_ms": pa.array([ARRIVED_MS] * n, pa.int64()),
        }
        for name, values_of in coordinates.items():
            table = table.append_column(name, values_of)
        tables[event_type] = table
    return EventBatch(tables)


def position_after(placed: Iterable[Placed], before: Position | None = None) -> dict[tuple[str, int], int]:
    """The checkpoint behind these records."""
    position = dict(before or {})
    for one in placed:
        place = (one.topic, one.partition)
        position[place] = max(position.get(place, 0), one.offset + 1)
    return position


def transaction(number: int, **changes: Any) -> TransactionRecorded:
    """A transaction of every shape in turn: plain transfers, trades with fees, card payments with features."""
    base = TransactionRecorded(
        tx_id=f"ethereum:0x{number:064x}:0",
        network="ethereum",
        kind=TransactionKind.TRANSFER,
        status=TransactionStatus.SETTLED if number % 7 else TransactionStatus.FAILED,
        source_wallet_id=f"ethereum:0x{number % 17:040x}",
        target_wallet_id=f"ethereum:0x{number % 23:040x}" if number % 11 else None,
        amount=Decimal(f"{number}.{number:018d}"),  # by text: sums round at 28 digits
        asset="ETH",
        counter_amount=None,
        counter_asset=None,
        fee=None,
        fee_asset=None,
        occurred_at=START + timedelta(minutes=number, microseconds=number),
        block=number,
        payment=None,
        card_features=None,
        personal=None,
        origin=Origin("file.csv", "ethereum@1", "run-1", number),
    )
    if number % 3 == 1:
        base = replace(
            base, kind=TransactionKind.TRADE, counter_amount=Decimal("99999999999999999999.999999999999999999"),
            counter_asset="DAI", fee=Decimal("0.000000000000000001"), fee_asset="GAS", block=None,
        )  # fmt: skip
    if number % 3 == 2:
        base = replace(
            base, kind=TransactionKind.PAYMENT,
            payment=Payment("grocery", "Gouda", "NL", "card", "device:1"),
            card_features=tuple(number / i - 1 for i in range(1, 29)),
        )  # fmt: skip
    return replace(base, **changes)


def described(wallet: str, name: str, days: int, **changes: Any) -> WalletDescribed:
    """A description that became known `days` after `START`."""
    event = WalletDescribed(wallet, WalletKind.EXCHANGE, name, "NL", "list", START + timedelta(days=days))
    return replace(event, **changes)


def scored(number: int, **changes: Any) -> tuple[str, Mapping[str, Any]]:
    """A score of transaction `number`."""
    record: dict[str, Any] = {
        "tx_id": transaction(number).tx_id, "tx_seq": number, "network": "ethereum",
        "source_wallet_id": transaction(number).source_wallet_id, "target_wallet_id": None,
        "score": 0.1 * (number % 10), "source_score": 0.25, "target_score": None, "features_only_score": 0.5,
        "source_features_only_score": 0.5, "target_features_only_score": None, "source_k": number, "target_k": None,
        "source_embedding_seq": None, "target_embedding_seq": None, "features": b"\x00\x01", "feature_set": "f1",
        "model_version": "m1",
    }  # fmt: skip
    return "TransactionScored", {**record, **changes}


def rescored(number: int, **changes: Any) -> tuple[str, Mapping[str, Any]]:
    """The same of another model, long after."""
    return "TransactionRescored", scored(number, **changes)[1]


def embedded(wallet: str, vector: bytes = b"\x00\x00\x80?" * 4, dimensions: int = 4) -> tuple[str, Mapping[str, Any]]:
    """An embedding of a wallet."""
    record = {"wallet_id": wallet, "vector": vector, "dimensions": dimensions, "model_version": "m2", "as_of_seq": 7}
    return "WalletEmbedded", record


def trained(model_version: str, days: int, uri: str = "s3://models/m1") -> tuple[str, Mapping[str, Any]]:
    """A training recorded `days` after `START`."""
    record = {
        "model_version": model_version, "package_sha256": "ab" * 32, "package_uri": uri, "trained_to_seq": 100,
        "labels": 10, "metrics": '{"auroc": 0.9}', "known_at": START + timedelta(days=days),
    }  # fmt: skip
    return "ModelTrained", record


def deployed(model_version: str, days: int) -> tuple[str, Mapping[str, Any]]:
    """A deployment recorded `days` after `START`."""
    record = {
        "model_version": model_version, "package_sha256": "ab" * 32, "endpoint": "tidemark", "from_seq": 101,
        "known_at": START + timedelta(days=days),
    }  # fmt: skip
    return "ModelDeployed", record
