"""The supervisor: a daemon that makes what runs equal to what is wanted. One a stack, by the lock on its folder.

Run as `python -m infra.stack.supervisor <state folder>`. It reads `desired.json` every tick, writes `status.json`, and
ends when nothing is wanted any more, on SIGTERM or SIGINT, or when the process that owns the stack has gone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import structlog

from infra import logs
from infra.stack import catalogue
from infra.stack.errors import StackBusy, StackError
from infra.stack.keeper import TICK_S, Keeper
from infra.stack.part import Part
from infra.stack.process import is_held
from infra.stack.state import Desired, PartStatus, StackState, is_alive

# A log file above this is copied aside once and emptied, so that a stack left running fills no disk.
LOG_MAX_BYTES = 20 * 2**20
_LOG_CHECK_S = 10.0

_log = structlog.get_logger(__name__)
ServerBuilder = Callable[[StackState, str, Desired], Part]


class Supervisor:
    """Starts what is wanted and missing, stops what runs and is unwanted, workers before servers."""

    def __init__(self, state: StackState, build_server: ServerBuilder = catalogue.server) -> None:
        self._state = state
        self._build_server = build_server
        self._keepers: dict[str, Keeper] = {}
        self._planned: Desired | None = None
        self._plan: dict[str, Part] = {}
        self._unbuildable: dict[str, PartStatus] = {}
        self._written: dict[str, PartStatus] | None = None
        self._logs_checked_at = 0.0
        self._is_ending = threading.Event()

    def request_end(self) -> None:
        """Ask for a clean stop of everything."""
        self._is_ending.set()

    def run(self) -> None:
        """Reconcile until nothing is wanted.

        Raises:
            StackBusy: another supervisor runs on this folder.
        """
        self._state.create()
        with self._state.supervisor_lock.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackBusy(f"a supervisor already runs on {self._state.folder}") from None
            _log.info("supervisor_started", pid=os.getpid(), folder=str(self._state.folder))
            while self._reconcile_or_log():
                time.sleep(TICK_S)
                if not _is_same_file(lock, self._state.supervisor_lock):
                    # Someone removed the folder under us: what runs belongs to nobody and a new stack may start there.
                    _log.error("state_folder_removed", folder=str(self._state.folder))
                    self.request_end()
            _log.info("supervisor_ended")

    def _reconcile_or_log(self) -> bool:
        # The outer loop: a full disk or a damaged file must not leave the servers without their keeper.
        try:
            return self.reconcile()
        except Exception as error:
            _log.exception("reconcile_failed", error=str(error))
            return True

    def reconcile(self) -> bool:
        """Take one step towards what is wanted; tell whether anything is still wanted or running."""
        self._make_plan(self._desired())
        for name, keeper in list(self._keepers.items()):
            if keeper.is_stopping and keeper.has_ended:
                del self._keepers[name]
        for name, part in self._plan.items():
            if name not in self._keepers:
                self._keepers[name] = self._keep(part)
        self._stop_unwanted()
        self._write_status()
        self._trim_logs()
        return bool(self._plan or self._keepers or self._unbuildable)

    def _desired(self) -> Desired:
        desired = Desired() if self._is_ending.is_set() else self._state.desired()
        if desired.owner is not None and not is_alive(*desired.owner):
            _log.warning("owner_gone", pid=desired.owner[0])
            self.request_end()
        return Desired() if self._is_ending.is_set() else desired

    def _make_plan(self, desired: Desired) -> None:
        if desired == self._planned:
            return
        self._plan, self._unbuildable = {}, {}
        for name in desired.parts:
            try:
                self._plan[name] = self._build_server(self._state, name, desired)
            except StackError as error:
                _log.error("part_unknown", part=name, error=str(error))
                self._unbuildable[name] = PartStatus(detail=str(error))
        for name, spec in desired.workers.items():
            self._plan[name] = catalogue.worker(self._state, name, spec)
        self._planned = desired

    def _keep(self, part: Part) -> Keeper:
        if part.ports and not is_held(part.folder):
            note = self._state.rechoose_taken_ports(part.name)
            if note is not None and self._planned is not None:
                _log.warning("port_taken", part=part.name, note=note)
                part = self._build_server(self._state, part.name, self._planned)
                self._plan[part.name] = part
        return Keeper(part, catalogue.environment(part), self._state.log(part.name), self._is_ready)

    def _stop_unwanted(self) -> None:
        for name, keeper in self._keepers.items():
            wanted = self._plan.get(name)
            is_wanted = wanted is not None and wanted.fingerprint == keeper.part.fingerprint
            if not is_wanted and not keeper.is_stopping and not self._dependants(name):
                keeper.request_stop()

    def _dependants(self, name: str) -> list[str]:
        """Name what must stop before this part: unwanted workers before any server, then by declared dependency."""
        if self._keepers[name].part.is_worker:
            return []
        return [
            other
            for other, keeper in self._keepers.items()
            if other != name and other not in self._plan and (keeper.part.is_worker or name in keeper.part.depends_on)
        ]

    def _is_ready(self, name: str) -> bool:
        keeper = self._keepers.get(name)
        return keeper is not None and keeper.status().is_ready

    def _write_status(self) -> None:
        if not self._state.folder.is_dir():
            return
        now = {name: keeper.status() for name, keeper in list(self._keepers.items())} | self._unbuildable
        if now != self._written:
            self._state.write_status(now)
            self._written = now

    def _trim_logs(self) -> None:
        if time.monotonic() - self._logs_checked_at < _LOG_CHECK_S:
            return
        self._logs_checked_at = time.monotonic()
        for file in self._state.logs.glob("*.log"):
            if file.stat().st_size > LOG_MAX_BYTES:
                # The writer keeps the file open in append mode: emptied in place, it goes on at the start.
                shutil.copyfile(file, file.with_suffix(".log.1"))
                os.truncate(file, 0)


def main(arguments: list[str]) -> int:
    """Supervise the state folder named by the one argument; return the exit status."""
    state = StackState(Path(arguments[0]))
    logs.configure("info", is_json=True)
    supervisor = Supervisor(state)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.request_end())
    try:
        supervisor.run()
    except StackBusy as error:
        _log.error("supervisor_refused", error=str(error))
        return 3
    return 0


def _is_same_file(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
