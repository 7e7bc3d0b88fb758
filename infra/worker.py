"""A worker as a process: build it, run the one loop until told to stop, and leave a status that says how it ended."""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from threading import Event
from types import FrameType, ModuleType

import structlog

from domain.errors import TidemarkError
from infra import watchdog
from infra.composition import Composition, NotReady, Worker
from infra.instances import process_name
from infra.leadership import Leadership
from infra.metrics import WorkerMetrics, write_failed, write_standby, write_starting
from infra.settings import Settings
from infra.stack.state import StackState
from projections.runner import Runner

log = structlog.get_logger(__name__)

START_ATTEMPTS_S = 60.0  # how long a worker waits for a server that is still coming up
UNUSED = ("pandas",)
"""Taken along by pyarrow.dataset and the drivers of Postgres and Neo4j wherever it is installed, though they do without and no worker
of ours uses it: a third of the processor time of a store's start, and 100 MB."""
EXIT_STOPPED = 0
EXIT_FAILED = 1


class _LeftOut(MetaPathFinder):
    """Lets the import of some libraries fail as if they were not installed."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname in UNUSED:
            raise ModuleNotFoundError(f"{fullname} is left out of workers", name=fullname)
        return None


def leave_out_unused() -> None:
    """Let imports of `UNUSED` fail in this process from here on."""
    sys.meta_path.insert(0, _LeftOut())


def run_worker(settings: Settings, name: str, instance: int = 1, stop: Event | None = None) -> int:
    """Run one process of a worker until SIGTERM or SIGINT; returns the exit status.

    Where only one of them may work (`instances.STANDING_BY`) it first waits until that is this one.

    A worker that fails says why in its log and status file and exits: whoever keeps it (the local stack, systemd, Fargate) starts
    it again, and it goes on from the stored position.
    """
    stop = stop or Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        log.info("stopping", worker=name, signal=signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    process = process_name(name, instance)
    structlog.contextvars.bind_contextvars(worker=process)
    composition = Composition(settings, instance)
    leadership = metrics = None
    is_ours = False  # a folder of a newer version is left as it is
    try:
        StackState(settings.stack_dir).create()  # the handler's index and the ledger live there, whoever's the servers are
        is_ours = True
        write_starting(process, settings.stack_dir / "workers")
        leadership = composition.leadership(name)
        if leadership is not None and not _leads(leadership, composition, name, process, stop):
            return EXIT_STOPPED
        worker = _built(composition, name, stop)
        if worker is None:
            return EXIT_STOPPED
        metrics = WorkerMetrics(process, settings.stack_dir / "workers")
        # What came up with the worker stays for its life: a collection that walks all of it would stop the worker for a fifth of a second.
        gc.collect()
        gc.freeze()
        log.info("started", topics=list(worker.work.topics))
        Runner(watchdog.Watched(worker.source), worker.work, worker.policy, metrics.flushed).run(stop)
    except (TidemarkError, NotReady) as error:
        log.error("stopped_by_error", error=str(error), kind=type(error).__name__)
        if metrics is not None:
            metrics.write("failed", str(error))
        elif is_ours:
            write_failed(process, settings.stack_dir / "workers", str(error))
        return EXIT_FAILED
    finally:
        if leadership is not None:
            watchdog.arm()
            leadership.close()
        watchdog.release()
    metrics.write("stopped")
    log.info("stopped")
    return EXIT_STOPPED


def _leads(leadership: Leadership, composition: Composition, name: str, process: str, stop: Event) -> bool:
    """Wait for the turn to work; tells whether it came. Meanwhile keep near the log whatever would take long to bring back."""

    def stand_by() -> None:
        write_standby(process, composition.settings.stack_dir / "workers")
        try:
            composition.follow(name)
        except TidemarkError as error:  # whoever is active says more of it; here it only means to read more at the takeover
            log.warning("cannot_follow", error=str(error))

    return leadership.wait(stop, stand_by)


def _built(composition: Composition, name: str, stop: Event) -> Worker | None:
    """Build the worker; a server that is not there yet is waited for, aloud."""
    deadline = time.monotonic() + START_ATTEMPTS_S
    while True:
        try:
            return composition.worker(name)
        except NotReady:
            raise
        except TidemarkError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("waiting", error=str(error))
            if stop.wait(1.0):
                return None
