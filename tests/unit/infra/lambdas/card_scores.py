"""Scores of card payments as records of the log, and stores in memory, as tests of the card alerts need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domain.log import NewRecord, Record
from infra.lambdas.card_alerts import AlertKey, CardAlert
from schema_registry.catalog import SchemaCatalog
from schema_registry.contracts import SCORE_EVENTS
from schema_registry.record_codec import RecordCodec

CODEC = RecordCodec(SchemaCatalog.numbered())
AT_MS = 1_700_000_000_000


def score_value(n: int, score: float, codec: RecordCodec = CODEC, **changes: Any) -> bytes:
    """The bytes of the n-th payment's score."""
    value: dict[str, Any] = {
        "tx_id": f"card:{n}:0", "tx_seq": n, "network": "card", "source_wallet_id": None, "target_wallet_id": None, "score": score,
        "source_score": None, "target_score": None, "features_only_score": score, "source_features_only_score": None,
        "target_features_only_score": None, "source_k": None, "target_k": None, "source_embedding_seq": None,
        "target_embedding_seq": None, "features": b"\x00" * 8, "feature_set": "tidemark-1", "model_version": "m1",
    }  # fmt: skip
    return codec.encode("TransactionScored", {**value, **changes})


def placed(n: int, value: bytes | None, partition: int = 0) -> Record:
    """A record of `score-events` at offset n."""
    return Record(SCORE_EVENTS, partition, n, AT_MS + n, b"k", value, (("seq", n.to_bytes(8, "big")),))


def score(n: int, of: float, **changes: Any) -> Record:
    """The n-th payment's score at offset n."""
    return placed(n, score_value(n, of, **changes))


class Table:
    """A relational table in memory; `dies` after its transaction."""

    def __init__(self) -> None:
        self.rows: dict[AlertKey, CardAlert] = {}
        self.dies = False

    def keep(self, alerts: Sequence[CardAlert], of: Sequence[AlertKey]) -> list[CardAlert]:
        for alert in alerts:
            self.rows.setdefault(alert.key, alert)
        if self.dies:
            raise KeyboardInterrupt
        return [self.rows[key] for key in of if key in self.rows]


class Items:
    """DynamoDB in memory; `dies` after so many puts."""

    def __init__(self) -> None:
        self.items: dict[AlertKey, CardAlert] = {}
        self.dies_after: int | None = None

    def put(self, alerts: Sequence[CardAlert]) -> int:
        fresh = 0
        for at, alert in enumerate(alerts):
            if at == self.dies_after:
                raise KeyboardInterrupt
            fresh += alert.key not in self.items
            self.items.setdefault(alert.key, alert)
        return fresh


class Log:
    """Appends in memory; `failed` are refused."""

    def __init__(self) -> None:
        self.records: list[NewRecord] = []
        self.failed: Mapping[int, str] = {}

    def append(self, records: Sequence[NewRecord]) -> dict[int, str]:
        self.records += [record for at, record in enumerate(records) if at not in self.failed]
        return dict(self.failed)


class Payloads:
    """An object store in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, name: str, payload: bytes) -> str:
        self.objects[f"s3://b/{name}"] = payload
        return f"s3://b/{name}"

    def get(self, uri: str) -> bytes | None:
        return self.objects.get(uri)
