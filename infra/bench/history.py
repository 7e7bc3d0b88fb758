"""`make bench-full`: what an event costs as the history behind it grows, what a rebuild of all of it takes, and how soon a worker is back.

One stack, filled in ten steps. In each, every worker takes what was added, one after the other and each in a process of its own, so that
what is counted is its own: records a second, processor time of worker and servers together, the largest memory. Processor time is what a
growing history would raise first, and a busy machine does not stretch it as it stretches seconds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from domain.errors import TidemarkError
from domain.log import Position
from infra.bench.drain import Drained, position_argument
from infra.bench.measure import spread
from infra.bench.own_stack import own_stack
from infra.bench.stream import Stream
from infra.composition import Composition
from infra.settings import Settings, process_environment
from infra.stack import Stack
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS

STEPS = 10
GRAPH_SHARE = 0.1  # of the events: at thousands a second, all of ten million would take it half an hour
CHUNK = 100_000  # commands sent at once: so many are in memory
RESTARTS = 3
BACKLOG = 200_000  # events that wait for a worker when it is started again: enough for a whole batch of each
PATHS = ("command-handler", "archive", "warehouse", "graph")
REBUILT = ("archive", "warehouse")
_PATIENCE_S = 300.0


class BenchFailed(TidemarkError):
    """A measured process ended with an error; its last words are in the message."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One worker's part of one step, or one rebuild: `behind` is how many events the log held when it began."""

    path: str
    behind: int
    records: int
    events_per_s: float
    cpu_us: float
    """Processor time for a record, in microseconds, worker and servers together."""
    worker_cpu_us: float
    peak_mib: float
    """The worker's largest resident size."""

    def as_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            "path": self.path, "behind": self.behind, "records": self.records, "events_per_s": round(self.events_per_s, 1),
            "cpu_us": round(self.cpu_us, 2), "worker_cpu_us": round(self.worker_cpu_us, 2), "peak_mib": round(self.peak_mib, 1),
        }  # fmt: skip


class HistoryBench:
    """One run in a stack of its own, which is removed afterwards.

    Args:
        events: simulated transactions in all.
    """

    def __init__(self, settings: Settings, events: int, console: Console) -> None:
        self._settings, self._events, self._console = settings, events, console
        self._stack: Stack
        self._composition: Composition

    def run(self) -> dict[str, Any]:
        """Measure everything; returns the figures as plain values.

        Raises:
            BenchFailed: a worker failed.
            StackError: a server does not come up or go down.
        """
        started = time.monotonic()
        costs: list[Cost] = []
        rebuilds: list[Cost] = []
        with own_stack(self._settings) as (self._composition, self._stack):
            stream = Stream(self._composition.clients.catalog, min(self._events, 300_000))
            step = self._events // STEPS
            for number in range(STEPS):
                self._say(f"step {number + 1} of {STEPS}: {step:,} more events")
                self._send(stream, step)
                costs += [cost for path in PATHS if (cost := self._cost(path, number * step)).records]
                if number in (0, STEPS - 1):
                    rebuilds += [self._rebuild(name, (number + 1) * step) for name in REBUILT]
            restarts = self._restarts(stream)
        return {
            "events": step * STEPS, "seconds": round(time.monotonic() - started, 1), "steps": [cost.as_json() for cost in costs],
            "rebuilds": [cost.as_json() for cost in rebuilds],
            "restarts_s": {name: spread(seconds, 2) for name, seconds in restarts.items()},
        }  # fmt: skip

    def _send(self, stream: Stream, count: int) -> None:
        while count > 0:
            self._composition.producer.send(COMMANDS, *stream.take(min(count, CHUNK)))
            self._composition.producer.flush()
            count -= CHUNK

    def _cost(self, path: str, behind: int) -> Cost:
        return self._measured(path, behind, ["worker", path, position_argument(self._until(path))])

    def _rebuild(self, name: str, behind: int) -> Cost:
        shutil.rmtree(self._stack.state.folder / "rebuild", ignore_errors=True)  # begin anew, wherever the last one stood
        self._say(f"rebuild of the {name}, {behind:,} events")
        return self._measured(name, behind, ["rebuild", name])

    def _measured(self, path: str, behind: int, arguments: list[str]) -> Cost:
        before = self._server_seconds()
        found = self._drained(arguments)
        servers = self._server_seconds() - before
        records = max(1, found.records)  # none where the step before went so far beyond its end that nothing was left
        return Cost(
            path, behind, found.records, records / found.seconds, (found.cpu_s + servers) / records * 1e6, found.cpu_s / records * 1e6,
            found.peak_mib,
        )  # fmt: skip

    def _until(self, path: str) -> Position:
        if path == "command-handler":
            return self._composition.log.ends([COMMANDS])
        ends = self._composition.log.ends([TRANSACTION_EVENTS])
        return ends if path != "graph" else {place: int(end * GRAPH_SHARE) for place, end in ends.items()}

    def _drained(self, arguments: list[str]) -> Drained:
        state = self._stack.state.folder
        here = {"TIDEMARK_STATE_DIR": str(state.parent), "TIDEMARK_STACK": state.name}
        done = subprocess.run(
            [sys.executable, "-m", "infra.bench.drain", *arguments],
            env=process_environment(here),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchFailed(f"{' '.join(arguments[:2])} failed: {done.stderr.strip()[-600:] or 'it said nothing'}")
        return Drained(**json.loads(done.stdout.splitlines()[-1]))

    def _server_seconds(self) -> float:
        pids = [status.pid for status in self._stack.status().values() if status.pid is not None]
        return sum(_tree_seconds(pid) for pid in pids)

    def _restarts(self, stream: Stream) -> dict[str, list[float]]:
        """Seconds from the start of a worker's process to its first batch in its store, with a backlog waiting for it."""
        found: dict[str, list[float]] = {name: [] for name in PATHS}
        backlog = min(BACKLOG, self._events // STEPS)
        for repetition in range(RESTARTS):
            self._say(f"restart {repetition + 1} of {RESTARTS}")
            self._send(stream, backlog)
            for name in PATHS:
                position = self._position_of(name)
                before = position()
                began = time.perf_counter()
                self._stack.start_worker(name, [sys.executable, "-m", "infra.cli", "run", name])
                self._wait(name, lambda position=position, before=before: position() != before)  # type: ignore[misc]
                found[name].append(time.perf_counter() - began)
                if name == "command-handler":
                    self._wait(name, self._is_handled)
            for name in PATHS:
                self._stack.stop_worker(name)
        return found

    def _position_of(self, name: str) -> Callable[[], Position]:
        if name == "command-handler":
            return lambda: dict(self._composition.log.ends([TRANSACTION_EVENTS]))
        store = self._composition.store(name)
        return lambda: dict(store.load_position())

    def _is_handled(self) -> bool:
        done = self._composition.clients.admin.committed("tidemark-command-handler", [COMMANDS])
        return all(done.get(place, 0) >= end for place, end in self._composition.log.ends([COMMANDS]).items())

    def _wait(self, name: str, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not is_so():
            if time.monotonic() > deadline:
                raise BenchFailed(f"{name} did nothing in {_PATIENCE_S:.0f} s: {self._stack.explain(name)}")
            time.sleep(0.01)

    def _say(self, what: str) -> None:
        self._console.print(f"  {what}", style="dim", highlight=False)


def table(result: dict[str, Any]) -> Table:
    """The figures for a terminal: the first and the last step, the rebuilds beside the live rate, the restarts to the first batch."""
    shown = Table(title=f"{result['events']:,} simulated events in {STEPS} steps, {result['seconds']:,.0f} s", title_justify="left")
    for name in ("path", "events behind", "events/s", "µs cpu", "peak MiB", "beside"):
        shown.add_column(name, justify="left" if name in ("path", "beside") else "right")
    for path in PATHS:
        steps = _of(result["steps"], path)
        shown.add_row(path, *_cells(steps[0]), "")
        shown.add_row(path, *_cells(steps[-1]), f"{steps[-1]['cpu_us'] / steps[0]['cpu_us']:.2f} × the first's µs")
    for cost in result["rebuilds"]:
        beside = f"{cost['events_per_s'] / live_rate(result, cost['path']):.2f} × live (asked: ≥ 2)"
        shown.add_row(f"rebuild {cost['path']}", *_cells(cost), beside)
    for name, seconds in result["restarts_s"].items():
        text = f"{seconds['median']:.2f} s ({seconds['min']:.2f}–{seconds['max']:.2f}) (asked: < 2)"
        shown.add_row(f"restart {name}", f"{result['events']:,}", "", "", "", text)
    return shown


def _cells(cost: dict[str, Any]) -> tuple[str, ...]:
    return f"{cost['behind']:,}", f"{cost['events_per_s']:,.0f}", f"{cost['cpu_us']:.1f}", f"{cost['peak_mib']:,.0f}"


def live_rate(result: dict[str, Any], path: str) -> float:
    """The median of a worker's rates over the steps, in events a second."""
    found = spread([cost["events_per_s"] for cost in _of(result["steps"], path)])
    assert found is not None
    return found["median"]


def _of(costs: Iterable[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    return [cost for cost in costs if cost["path"] == path]


def _tree_seconds(pid: int) -> float:
    """Processor seconds of a process, of its descendants, and of those that have ended and were waited for."""
    try:
        root = psutil.Process(pid)
        trees = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for process in trees:
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total
