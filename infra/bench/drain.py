"""One worker, or one rebuild, in a process of its own that says what it cost: run by `infra.bench.history`.

    python -m infra.bench.drain worker warehouse '[["transaction-events", 0, 1000]]'
    python -m infra.bench.drain rebuild warehouse

Prints one line of JSON. A process of its own, so that neither the bench's memory nor its processor time is in the figures.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from threading import Event

from domain.log import Position
from infra import logs
from infra.composition import Composition
from infra.rebuild import rebuild
from infra.settings import load_settings
from infra.stack import Stack
from projections.runner import Flushed, Runner

_KIB = 1024  # ru_maxrss counts those on Linux


class _Read(Exception):
    """All of the log is in the new generation."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What was done: records, seconds of wall clock and of processor (this process alone), and its largest resident size in MiB."""

    records: int
    seconds: float
    cpu_s: float
    peak_mib: float


def drain(name: str, until: Position) -> Drained:
    """Run a worker to a position, from the worker's start to its last commit; connecting beforehand is not counted."""
    composition = Composition(Stack.of(load_settings()).settings())
    worker = composition.worker(name)
    records = 0

    def count(flushed: Flushed) -> None:
        nonlocal records
        records += flushed.records

    began, cpu = time.perf_counter(), time.process_time()
    Runner(worker.source, worker.work, worker.policy, count).run(Event(), until)
    return Drained(records, time.perf_counter() - began, time.process_time() - cpu, _peak_mib())


def rebuilt(name: str) -> Drained:
    """Read the next generation from the first event to the head, and stop before its proof: that is no part of the rate."""
    stack = Stack.of(load_settings())
    records = 0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal records
        if stage == "verify":
            raise _Read
        records = max(records, done)

    composition = Composition(stack.settings())
    began, cpu = time.perf_counter(), time.process_time()
    with suppress(_Read):
        rebuild(composition, stack, name, actor="bench", progress=progress, swaps=False)
    return Drained(records, time.perf_counter() - began, time.process_time() - cpu, _peak_mib())


def position_argument(position: Position) -> str:
    """A position as the command line's argument."""
    return json.dumps([[topic, partition, offset] for (topic, partition), offset in sorted(position.items())])


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    what, name = arguments[:2]
    logs.configure("warning", is_json=True)
    if what == "worker":
        found = drain(name, {(topic, int(partition)): int(offset) for topic, partition, offset in json.loads(arguments[2])})
    else:
        found = rebuilt(name)
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
    return 0


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
