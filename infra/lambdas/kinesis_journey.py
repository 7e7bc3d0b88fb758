"""How long a record takes from Kinesis to Kafka: put at an offered rate, open loop, until a read_committed reader holds its event."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from domain.log import Position
from infra.composition import Composition
from infra.kafka.source import KafkaSource
from infra.lambdas.kinesis_road import KinesisWriter
from infra.latency import Latency, LatencyError
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import TRANSACTION_EVENTS

SETTLE_S = 60.0  # how long the last events are waited for
_SLICES_PER_S = 20
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Item:
    """A record to put. `tx_id` is that of its event; none for one that must not become any."""

    key: str
    data: bytes
    tx_id: str | None


def journey(
    composition: Composition, items: Sequence[Item], rate: float, progress: Callable[[int], None] = lambda sent: None
) -> tuple[Latency, int]:
    """Put records at `rate` a second; returns milliseconds from put to event, and how many events came.

    Raises:
        LatencyError: no event came at all.
        StoreUnavailable: Kinesis does not take the records.
        LogError: Kafka does not answer.
    """
    reader = _Reader(composition, composition.clients.admin.ends([TRANSACTION_EVENTS]))
    reader.start()
    writer = KinesisWriter(composition.clients.aws("kinesis"), composition.settings.kinesis.stream)
    put_at: dict[str, float] = {}
    step = max(1, round(rate / _SLICES_PER_S))
    started = time.perf_counter()
    try:
        for at in range(0, len(items), step):
            time.sleep(max(0.0, started + at / rate - time.perf_counter()))
            part = items[at : at + step]
            now = time.perf_counter()
            for item in part:
                if item.tx_id is not None:
                    put_at.setdefault(item.tx_id, now)
            writer.put((item.key, item.data) for item in part)
            progress(at + len(part))
        seconds = time.perf_counter() - started
        reader.wait(put_at)
    finally:
        reader.stop()
    found = [(reader.arrived[tx_id] - at) * 1000 for tx_id, at in put_at.items() if tx_id in reader.arrived]
    if not found:
        raise LatencyError("no event came from Kinesis: `tidemark status` says whether kinesis-ingestion and command-handler run")
    p50, p95, p99 = (round(float(value), 2) for value in np.percentile(found, [50, 95, 99]))
    return Latency(p50, p95, p99, len(found), len(put_at), round(len(items) / seconds, 1)), reader.events


class _Reader(threading.Thread):
    """Notes when the event of each tx_id first arrived, and counts all of them."""

    def __init__(self, composition: Composition, start: Position) -> None:
        super().__init__(daemon=True)
        self._codec = ColumnCodec(composition.clients.catalog, {"TransactionRecorded": ("tx_id",)})
        topics = [TRANSACTION_EVENTS]
        self._source = KafkaSource(composition.clients.kafka, topics, "tidemark-journey", "tidemark-journey", is_alone=True, drain_s=0.0)
        self._source.open(lambda: start, lambda: None, lambda: None)
        self.arrived: dict[str, float] = {}
        self.events = 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.is_set():
            batches = self._source.poll(1_000, _POLL_S)
            now = time.perf_counter()
            for batch in batches:
                found = self._codec.decode(batch.values).tables.get("TransactionRecorded")
                for tx_id in found.table["tx_id"].to_pylist() if found is not None else ():
                    self.arrived.setdefault(tx_id, now)
                    self.events += 1
        self._source.close()

    def wait(self, expected: dict[str, float]) -> None:
        deadline = time.monotonic() + SETTLE_S
        while any(tx_id not in self.arrived for tx_id in expected) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def stop(self) -> None:
        self._done.set()
        self.join()
