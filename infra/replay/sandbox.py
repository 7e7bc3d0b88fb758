"""Where a replay takes place: topics of its own beside the log, which nothing else reads, and which go when it ends."""

from __future__ import annotations

import fcntl
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from domain.errors import LogError
from infra.kafka.admin import TopicAdmin
from infra.kafka.producer import PlainProducer
from infra.replay.errors import ReplayError
from projections.records import seq_headers
from schema_registry.column_encoder import ColumnEncoder
from schema_registry.contracts import CASE_EVENTS, PARTITIONS, SCORE_EVENTS, TRANSACTION_EVENTS

log = structlog.get_logger(__name__)

PREFIX = "replay-"
KEPT = "kept"
"""Marks a replay's folder whose topics are to stay."""
CHUNK_ROWS = 10_000
MOST_AHEAD = 40_000  # transactions that a replay without a pace may stand before the judgement: more would only wait in Kafka
_TICK_S = 0.005
_RUN_OF = re.compile(r"replay-(r-[0-9a-f]{12})-.*")


class Sandbox:
    """Topics of one replay. Enter it to make them; they are deleted on leaving, unless `keep` was called.

    Args:
        folder: where replays lie; each has a lock in its own, so that what a killed one left can be told from what is in use.
        variants: how many topics of case events.

    Raises:
        ReplayError: the same replay runs already.
        LogError: Kafka refuses.
    """

    def __init__(self, admin: TopicAdmin, folder: Path, run_id: str, variants: int) -> None:
        self._admin, self._folder, self._run_id, self._is_kept = admin, folder, run_id, False
        # A deletion takes Kafka a moment: a second run must not meet the topics of the first.
        prefix = f"{PREFIX}{run_id}-{time.time_ns() % 1_000_000_000:09d}-"
        self.transactions, self.scores = prefix + TRANSACTION_EVENTS, prefix + SCORE_EVENTS
        self.cases = tuple(f"{prefix}{CASE_EVENTS}-{number}" for number in range(1, variants + 1))
        self._lock: IO[bytes] | None = None

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic of it."""
        return (self.transactions, self.scores, *self.cases)

    def __enter__(self) -> Self:
        self._lock = _locked(self._folder / self._run_id)
        if self._lock is None:
            raise ReplayError(f"the replay {self._run_id} runs already; wait for it, or change what is replayed")
        self._sweep()
        self._admin.create(dict.fromkeys(self.topics, PARTITIONS[TRANSACTION_EVENTS]))
        return self

    def keep(self) -> tuple[str, ...]:
        """Leave the topics, whatever comes; returns them."""
        (self._folder / self._run_id / KEPT).touch()
        self._is_kept = True
        return self.topics

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if not self._is_kept:
                self._admin.delete(self.topics)
        except LogError as refused:  # the next replay tries again; what this one found is not lost for it
            log.warning("sandbox_left_behind", topics=len(self.topics), error=str(refused))
        finally:
            if self._lock is not None:
                self._lock.close()

    def _sweep(self) -> None:
        """Delete what replays of this folder left that were killed; those of other machines are not known to be dead."""
        left = []
        for topic in self._admin.names(PREFIX):
            found = _RUN_OF.fullmatch(topic)
            if found is None or not (self._folder / found[1]).is_dir() or (self._folder / found[1] / KEPT).exists():
                continue
            lock = _locked(self._folder / found[1]) if found[1] != self._run_id else None
            if lock is not None or found[1] == self._run_id:
                left.append(topic)
            if lock is not None:
                lock.close()
        if left:
            self._admin.delete(left)


def _locked(folder: Path) -> IO[bytes] | None:
    """The lock of a replay's folder, none where another holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (folder / "lock").open("wb")
    except OSError as error:
        raise ReplayError(f"{folder}: a replay needs a folder to write into: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


class Feeder(threading.Thread):
    """Appends a stream to the sandbox at its pace, or as fast as it is judged, each record with the next seq.

    Args:
        tables: transactions in the order in which they are replayed.
        speed: how many seconds of history pass in one; none for no pace.
        done: how many were judged already.
        is_over: set by whoever gives up.

    A pace is kept whatever the judgement does: where it cannot keep up, it falls behind, and its latency says so.
    """

    def __init__(
        self, producer: PlainProducer, topic: str, encoder: ColumnEncoder, tables: Iterator[pa.Table], speed: float | None,
        done: Callable[[], int], is_over: threading.Event,
    ) -> None:  # fmt: skip
        super().__init__(name="replay-feeder", daemon=True)
        self._producer, self._topic, self._encoder, self._tables = producer, topic, encoder, tables
        self._speed, self._done, self._is_over = speed, done, is_over
        self._start_us: int | None = None
        self._latest_us = 0
        self._began = 0.0
        self.sent = 0
        self.seconds = 0.0
        self.error: BaseException | None = None

    def run(self) -> None:
        """See `Thread`. An error is kept for whoever waits."""
        try:
            self._began = time.monotonic()
            for table in self._tables:
                for at in range(0, table.num_rows, CHUNK_ROWS):
                    self._offer(table.slice(at, CHUNK_ROWS))
                    if self._is_over.is_set():
                        return
            self._producer.flush()
            self.seconds = time.monotonic() - self._began
            while not self._is_over.wait(_TICK_S):
                if self._done() >= self.sent:
                    self._is_over.set()
        except BaseException as error:  # a panic of a library in Rust is no Exception: whoever waits must hear of it
            self.error = error
            self._is_over.set()

    def _offer(self, table: pa.Table) -> None:
        keys = pc.coalesce(table["source_wallet_id"], table["tx_id"]).cast(pa.binary()).to_pylist()
        times = table["occurred_at"].cast(pa.int64()).to_numpy()
        values = self._encoder.encode(table.drop_columns(["_seq"]) if "_seq" in table.column_names else table)
        if self._speed is None:
            while self.sent - self._done() > MOST_AHEAD and not self._is_over.wait(_TICK_S):
                pass
            self._send(keys, values)
            return
        self._start_us = int(times[0]) if self._start_us is None else self._start_us
        reached = np.maximum.accumulate(np.append(max(self._latest_us, self._start_us), times))[1:]
        self._latest_us = int(reached[-1])
        due = (reached - self._start_us) / 1e6 / self._speed
        at = 0
        while at < len(values) and not self._is_over.is_set():
            now = time.monotonic() - self._began
            until = int(np.searchsorted(due, now, side="right"))
            if until > at:
                self._send(keys[at:until], values[at:until])
                at = until
            else:
                self._is_over.wait(min(max(float(due[at]) - now, 0.0005), 0.2))

    def _send(self, keys: Sequence[bytes | None], values: Sequence[bytes]) -> None:
        self._producer.send(self._topic, keys, values, seq_headers(self.sent, len(values)))
        self.sent += len(values)
