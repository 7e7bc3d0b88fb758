"""A small log for tests of the wallet graph: events in partitions by key, cut into batches in any way."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from projections.protocol import EventBatch, Excluded
from projections.wallet_graph import WalletGraphProjection
from projections.wallet_graph_rows import READS
from schema_registry.column_codec import arrow_schema
from schema_registry.contracts import TOPIC_BY_EVENT_TYPE

START = datetime(2020, 1, 1, tzinfo=UTC)
PARTITIONS = 6
Rows = dict[str, list[tuple[str | None, ...]]]


class SmallLog:
    """Events as they are added; `seq` counts the transactions."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[tuple[str, dict[str, Any]]]] = {}
        self.seq = -1

    def add(self, name: str, key: str, /, **fields: Any) -> None:
        topic = TOPIC_BY_EVENT_TYPE[name]
        records = self.records.setdefault((topic, zlib.crc32(key.encode()) % PARTITIONS), [])
        records.append((name, {**fields, "_seq": self.seq}))

    def send(self, source: str | None, target: str | None, amount: str = "1.5", **fields: Any) -> str:
        self.seq += 1
        tx_id = fields.pop("tx_id", f"test:tx{self.seq}:0")
        row = {
            "tx_id": tx_id, "kind": "transfer", "status": "settled", "source_wallet_id": source,
            "target_wallet_id": target, "amount": Decimal(amount), "asset": "ETH",
            "occurred_at": START + timedelta(seconds=self.seq),
        }  # fmt: skip
        self.add("TransactionRecorded", source or tx_id, **{**row, **fields})
        return tx_id

    def void(self, tx_id: str, reason: str = "wrong_mapping") -> None:
        self.add("TransactionVoided", tx_id, tx_id=tx_id, reason=reason, replaced_by=None, known_at=START + timedelta(days=1))

    def score(self, tx_id: str, seq: int, source: str | None, target: str | None, *scores: float | None) -> None:
        source_score, target_score = scores or (0.2, 0.7)
        self.add(
            "TransactionScored", source or tx_id, tx_id=tx_id, tx_seq=seq, source_wallet_id=source,
            target_wallet_id=target, score=max(source_score or 0.0, target_score or 0.0), source_score=source_score,
            target_score=target_score, model_version="m1",
        )  # fmt: skip

    def embed(self, wallet: str, seq: int, *numbers: float) -> None:
        vector = np.array(numbers, "<f4").tobytes()
        self.add(
            "WalletEmbedded", wallet, wallet_id=wallet, vector=vector, dimensions=len(numbers), model_version="m1",
            as_of_seq=seq,
        )  # fmt: skip

    def alert(self, case: str, wallet: str, tx_id: str = "test:tx0:0", explanation: str = "fan in") -> None:
        self.add(
            "AlertRaised", case, case_id=case, wallet_id=wallet, reason="score", score=0.9, threshold=0.8,
            tx_id=tx_id, tx_seq=0, explanation=explanation, model_version="m1", known_at=START,
        )  # fmt: skip

    def extend(self, case: str, wallet: str, tx_id: str) -> None:
        self.add("AlertExtended", case, case_id=case, wallet_id=wallet, score=0.95, tx_id=tx_id, tx_seq=1, known_at=START)

    def end(self) -> dict[tuple[str, int], int]:
        return {place: len(records) for place, records in self.records.items()}

    def batches(
        self, rows: int, seed: int = 0, topics: tuple[str, ...] = (), start: dict[tuple[str, int], int] | None = None
    ) -> Iterator[tuple[EventBatch, dict[tuple[str, int], int], dict[tuple[str, int], int]]]:
        """Batches of up to `rows` of one partition each, partitions in random turn: (batch, before, after)."""
        order = random.Random(seed)
        at = {place: (start or {}).get(place, 0) for place in self.records if not topics or place[0] in topics}
        while left := sorted(place for place, offset in at.items() if offset < len(self.records[place])):
            place = order.choice(left)
            taken = self.records[place][at[place] : at[place] + rows]
            yield _batch(place, at[place], taken), {place: at[place]}, {place: at[place] + len(taken)}
            at[place] += len(taken)

    def whole(self) -> Iterator[EventBatch]:
        first = WalletGraphProjection.read_first
        rest = tuple({topic for topic, _ in self.records} - set(first))
        return (batch for topics in (first, rest) if topics for batch, _, _ in self.batches(1_000_000, topics=topics))


def apply_all(sink: WalletGraphProjection, log: SmallLog, rows: int = 1000, seed: int = 0) -> None:
    for batch, before, after in log.batches(rows, seed, start=sink.load_position()):
        sink.apply(batch, before, after)


def expected(sink: WalletGraphProjection, log: SmallLog, excluded: Excluded | None = None) -> Rows:
    return text_rows(sink.expected(log.whole(), excluded or Excluded()))


def read_back(sink: WalletGraphProjection) -> Rows:
    return text_rows(sink.read_back())


def text_rows(tables: Iterator[tuple[str, pa.Table]]) -> Rows:
    found: Rows = {}
    for name, table in tables:
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        if frame.height:
            found.setdefault(name, []).extend(frame.select(pl.all().cast(pl.String)).rows())
    return {name: sorted(rows, key=lambda row: [value or "" for value in row]) for name, rows in found.items()}


def everything() -> SmallLog:
    """A log with each event that the graph reads: two-sided, one-sided, failed, huge, self-sent, scored early and
    never placed."""
    log = SmallLog()
    a, b, c, exchange = "test:aaaaaaaaaaaaaaaaaaaa", "test:b", "test:c", "test:exchange"
    first = log.send(a, b, "99999999999999999999.999999999999999999")
    log.send(a, b, "99999999999999999999.999999999999999999")
    log.send(a, b, "0.000000000000000001")
    log.send(b, c, "7", status="failed")
    log.send(c, c, "2", asset='it\'s "{x}" <b>\x1b[31m\n')
    log.send(None, b, "3")
    log.send(c, None, "4")
    card = log.send(None, None, "5")
    log.send(c, exchange, "0")
    log.score(first, 0, a, b, 0.1, 0.6)
    log.score("test:tx1:0", 1, a, b, 0.9, 0.2)
    log.score("test:tx4:0", 4, c, c, 0.3, 0.4)
    log.score(card, 7, None, None, None, None)
    log.add("WalletDescribed", exchange, wallet_id=exchange, kind="address", name="old", country=None, source="list")
    log.add("WalletDescribed", exchange, wallet_id=exchange, kind="exchange", name="Kraken", country="US", source="l2")
    log.add("WalletDescribed", "test:unseen", wallet_id="test:unseen", kind="merchant", name=None, country="DE", source="l")
    log.add("WalletLabelled", a, wallet_id=a, label="licit", source="x")
    log.add("WalletLabelled", a, wallet_id=a, label="illicit", source="y")
    log.add("WalletFrozen", a, wallet_id=a, reason="court")
    log.add("WalletFrozen", b, wallet_id=b, reason="court")
    log.add("WalletReleased", b, wallet_id=b, reason="mistake")
    log.embed(a, 1, 1.0, 2.0, 3.0, 0.1)
    log.embed(a, 0, 9.0, 9.0, 9.0, 9.0)
    log.embed(b, 2, 1.0, 2.0, 3.0, 0.2)
    log.alert("case1", a, first)
    log.extend("case1", a, "test:tx1:0")
    log.add("CaseOpened", "case1", case_id="case1")
    log.add("CaseAssigned", "case1", case_id="case1", assignee="ann")
    log.add("VerdictReached", "case1", case_id="case1", verdict="fraud", reason="mixer")
    log.alert("case2", b)
    log.add("CaseOpened", "case3", case_id="case3")
    return log


def _batch(place: tuple[str, int], offset: int, records: list[tuple[str, dict[str, Any]]]) -> EventBatch:
    rows: dict[str, list[dict[str, Any]]] = {}
    for i, (name, fields) in enumerate(records):
        coordinates = {"_topic": place[0], "_partition": place[1], "_offset": offset + i, "_timestamp_ms": 0}
        rows.setdefault(name, []).append({**fields, **coordinates})
    return EventBatch({name: _table(name, found) for name, found in rows.items()})


def _table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    schema = arrow_schema(name, frozenset(READS[name]))
    coordinates = [
        ("_topic", pa.string()), ("_partition", pa.int32()), ("_offset", pa.int64()), ("_seq", pa.int64()),
        ("_timestamp_ms", pa.int64()),
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=pa.schema([*schema, *(pa.field(*field) for field in coordinates)]))
