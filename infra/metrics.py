"""What a worker tells the outside while it runs: Prometheus metrics on loopback, and a small status file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from projections.runner import Flushed

STATUS_EVERY_S = 0.5
RATE_WINDOW_S = 10.0
STANDBY = "standby"
STARTING = "starting"


class WorkerMetrics:
    """Counts flushes; serves `/metrics` on a free loopback port, which the status file names.

    Args:
        name: the worker.
        folder: where `<name>.json` is written.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._file = folder / f"{name}.json"
        folder.mkdir(parents=True, exist_ok=True)
        registry = CollectorRegistry()
        self._records = Counter("tidemark_records", "Records taken.", ["worker"], registry=registry)
        self._quarantined = Counter("tidemark_quarantined", "Records put into quarantine.", ["worker"], registry=registry)
        self._seconds = Histogram("tidemark_flush_seconds", "Seconds a flush took.", ["worker"], registry=registry)
        self._position = Gauge("tidemark_next_offset", "Next offset.", ["worker", "topic", "partition"], registry=registry)
        self._waiting = Gauge("tidemark_waiting", "Records that wait for a smaller seq.", ["worker"], registry=registry)
        self._retries = Counter(
            "tidemark_store_retries", "Transactions written again after a deadlock or another passing error of the store.", ["worker"],
            registry=registry,
        )  # fmt: skip
        server, _ = start_http_server(0, addr="127.0.0.1", registry=registry)
        self._port = server.server_port
        self._total = self._bad = self._repeated = 0
        self._recent: list[tuple[float, int]] = []
        self._written_at = 0.0
        self._after: dict[str, int] = {}
        self.write("ready")

    def flushed(self, report: Flushed) -> None:
        """Take in a report of the runner."""
        name = self._name
        self._records.labels(name).inc(report.records)
        self._quarantined.labels(name).inc(report.quarantined)
        self._seconds.labels(name).observe(report.seconds)
        self._waiting.labels(name).set(report.waiting)
        self._retries.labels(name).inc(report.retries)
        for (topic, partition), offset in report.after.items():
            self._position.labels(name, topic, str(partition)).set(offset)
            self._after[f"{topic}/{partition}"] = offset
        self._total += report.records
        self._bad += report.quarantined
        self._repeated += report.retries
        now = time.monotonic()
        self._recent = [(at, n) for at, n in self._recent if now - at < RATE_WINDOW_S] + [(now, report.records)]
        if now - self._written_at > STATUS_EVERY_S:
            self._written_at = now
            self.write("running")

    def write(self, state: str, error: str | None = None) -> None:
        """Write the status file, atomically."""
        span = max(time.monotonic() - self._recent[0][0], 0.2) if self._recent else RATE_WINDOW_S
        status: dict[str, Any] = {
            "worker": self._name, "pid": os.getpid(), "state": state, "records": self._total, "quarantined": self._bad,
            "store_retries": self._repeated,
            "records_per_s": round(sum(n for _, n in self._recent) / span, 1), "position": self._after,
            "metrics_port": self._port, "last_error": error, "written_at": time.time(),
        }  # fmt: skip
        _replace(self._file, status)


def write_starting(name: str, folder: Path) -> None:
    """The status file of a process that reads what it needs before it works; why the one before it failed stays to be seen."""
    _write_idle(name, folder, STARTING, read_statuses(folder).get(name, {}).get("last_error"))


def write_failed(name: str, folder: Path, error: str) -> None:
    """The status file of a process that failed before it worked."""
    _write_idle(name, folder, "failed", error)


def write_standby(name: str, folder: Path) -> None:
    """The status file of a process that waits until the active one ends."""
    _write_idle(name, folder, STANDBY, None)


def _write_idle(name: str, folder: Path, state: str, last_error: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    told = {"worker": name, "pid": os.getpid(), "state": state, "last_error": last_error, "written_at": time.time()}
    _replace(folder / f"{name}.json", told)


def _replace(file: Path, status: dict[str, Any]) -> None:
    fresh = file.with_suffix(".tmp")
    fresh.write_text(json.dumps(status), "utf-8")
    fresh.replace(file)


def read_statuses(folder: Path) -> dict[str, dict[str, Any]]:
    """The status of each worker that has ever run here."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        try:
            found[file.stem] = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            continue  # being replaced, or not ours
    return found
