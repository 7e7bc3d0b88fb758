"""Latency as a user of scores sees it: open loop, at an offered rate, from the event's append to the score in a reader's hands.

Commands leave on a fixed schedule whatever comes back. A read_committed reader notes when each score arrives; the clock starts at the
broker's own append time of the event, so the handler's commit, the scorer, the endpoint and the score's commit are all inside. The
reader gathers nothing: it looks at the clock as soon as a score is there.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from domain.log import Position
from infra.composition import Composition
from infra.kafka.producer import PlainProducer
from infra.kafka.source import KafkaSource
from projections.records import NO_SEQ
from schema_registry.contracts import COMMANDS, SCORE_EVENTS, TRANSACTION_EVENTS

SETTLE_S = 20.0  # how long the last scores are waited for
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from event append to score received, and how many of the offered were scored."""

    p50: float
    p95: float
    p99: float
    n: int
    offered: int
    offered_per_s: float

    def as_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            "p50": self.p50, "p95": self.p95, "p99": self.p99, "n": self.n, "offered": self.offered, "offered_per_s": self.offered_per_s,
        }  # fmt: skip


class LatencyError(RuntimeError):
    """No score came back."""


def measure(
    composition: Composition,
    keys: Sequence[bytes],
    values: Sequence[bytes],
    rate: float,
    progress: Callable[[int], None] = lambda sent: None,
) -> Latency:
    """Offer commands at `rate` a second and time their scores.

    Raises:
        LatencyError: no score arrived at all.
        LogError: Kafka does not answer.
    """
    start = composition.clients.admin.ends([TRANSACTION_EVENTS, SCORE_EVENTS])
    reader = _Reader(composition, start)
    gc.collect()
    gc.freeze()  # a collection of all that the caller holds would stop the clock's hand, not the scores
    try:
        reader.start()
        sent = _offer(composition.clients.kafka, keys, values, rate, progress)
        reader.finish(len(keys))
    finally:
        gc.unfreeze()
    found = reader.latencies_ms()
    if not len(found):
        raise LatencyError("no score arrived: is the scorer running? `tidemark status` says")
    p50, p95, p99 = (round(float(value), 2) for value in np.percentile(found, [50, 95, 99]))
    return Latency(p50, p95, p99, len(found), len(keys), round(len(keys) / sent, 1))


def _offer(config: Any, keys: Sequence[bytes], values: Sequence[bytes], rate: float, progress: Callable[[int], None]) -> float:
    producer = PlainProducer(config, linger_ms=0)
    started = time.perf_counter()
    for i, (key, value) in enumerate(zip(keys, values, strict=True)):
        wait = started + i / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        producer.send(COMMANDS, [key], [value])
        if i % 100 == 0:
            progress(i)
    producer.flush()
    return time.perf_counter() - started


class _Reader(threading.Thread):
    """Notes when each event was appended and when each score arrived, by seq."""

    def __init__(self, composition: Composition, start: Position) -> None:
        super().__init__(daemon=True)
        topics = [TRANSACTION_EVENTS, SCORE_EVENTS]
        # Nothing is gathered after the first record: the clock of each stops when it is here, not when a batch is full.
        self._source = KafkaSource(composition.clients.kafka, topics, "tidemark-latency", "tidemark-latency", is_alone=True, drain_s=0.0)
        self._source.open(lambda: start, lambda: None, lambda: None)
        self._appended: dict[int, int] = {}
        self._scored: dict[int, float] = {}
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.is_set():
            batches = self._source.poll(1_000, _POLL_S)
            now = time.time() * 1000
            for batch in batches:
                seqs = batch.seqs().tolist()
                if batch.topic == SCORE_EVENTS:
                    self._scored.update((seq, now) for seq in seqs if seq != NO_SEQ)
                else:
                    self._appended.update(zip(seqs, batch.timestamps_ms.tolist(), strict=True))
        self._source.close()

    def finish(self, expected: int) -> None:
        deadline = time.monotonic() + SETTLE_S
        while len(self._scored) < expected and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self._done.set()
        self.join()

    def latencies_ms(self) -> np.ndarray:
        return np.array([at - self._appended[seq] for seq, at in self._scored.items() if seq in self._appended])
