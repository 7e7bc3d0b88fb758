"""Processes of the stack: started in a session of their own with their folder's lock, found again, and stopped.

The lock travels into the child as an open file: it is free only when the last process of the part has gone, whoever
started it. So no two servers ever share one data folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from infra.stack.errors import StackBusy
from infra.stack.part import Part
from infra.stack.state import is_alive, is_locked, write_private

_LOCK_NAME = "lock"
_RECORD_NAME = "process.json"
_POLL_S = 0.05


class RunningProcess:
    """One started or adopted process, known by pid and creation time, so that a reused pid is never mistaken for it."""

    def __init__(self, pid: int, created_at: float, child: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self.created_at = created_at
        self._child = child

    def exit_code(self) -> int | None:
        """Return None while it runs, its exit code afterwards (-1 for an adopted one, whose code nobody learns)."""
        if self._child is not None:
            return self._child.poll()
        return None if is_alive(self.pid, self.created_at) else -1

    def signal(self, number: signal.Signals) -> None:
        """Signal the process alone."""
        if self.exit_code() is None:
            _ignore_gone(os.kill, self.pid, number)

    def kill(self) -> None:
        """End the process and everything of its session at once."""
        _ignore_gone(os.killpg, self.pid, signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; tell whether it came."""
        deadline = time.monotonic() + timeout_s
        while self.exit_code() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True


def start(part: Part, env: Mapping[str, str], log: Path) -> RunningProcess:
    """Start a part, its output appended to the log.

    Raises:
        StackBusy: another process holds the part's folder.
        OSError: the program cannot be started.
    """
    part.folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(part.folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackBusy(f"{part.name}: another process holds {part.folder}; stop it first") from None
        with log.open("ab") as output:
            child = subprocess.Popen(
                part.argv,
                env=dict(env),
                cwd=part.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(descriptor,),
            )
    finally:
        os.close(descriptor)
    try:
        created_at = psutil.Process(child.pid).create_time()
    except psutil.NoSuchProcess:
        created_at = time.time()
    record = {"pid": child.pid, "created_at": created_at, "fingerprint": part.fingerprint}
    write_private(part.folder / _RECORD_NAME, json.dumps(record))
    return RunningProcess(child.pid, created_at, child)


def adopt(part: Part) -> RunningProcess | None:
    """Return the process that an earlier supervisor left behind, if it is just what is wanted; stop any other.

    Raises:
        StackBusy: a process holds the folder and will not go.
    """
    if not is_locked(part.folder / _LOCK_NAME):
        return None
    record = _record(part.folder)
    if record is not None:
        pid, created_at, fingerprint = record
        if fingerprint == part.fingerprint and is_alive(pid, created_at):
            return RunningProcess(pid, created_at, None)
    stop_holders(part.folder, part.stop_signal, part.stop_timeout_s)
    return None


def stop_holders(folder: Path, number: signal.Signals = signal.SIGTERM, timeout_s: float = 20.0) -> None:
    """Stop whatever holds the lock of this folder: first asked, then killed.

    Raises:
        StackBusy: it will not go.
    """
    lock = folder / _LOCK_NAME
    record = _record(folder)
    asked = False
    deadline = time.monotonic() + timeout_s
    while is_locked(lock):
        holders = _holders(lock.resolve())
        if not asked:
            # The part's own process ends its children as it sees fit; without it each is asked.
            for pid in [pid for pid in holders if record is not None and pid == record[0]] or holders:
                _ignore_gone(os.kill, pid, number)
            # A process in the midst of starting may not be found at the first look: then the next one asks.
            asked = bool(holders)
        if time.monotonic() > deadline:
            for pid in holders:
                _ignore_gone(os.kill, pid, signal.SIGKILL)
            if time.monotonic() > deadline + 5.0:
                raise StackBusy(f"{folder}: process {holders} holds it and does not end")
        time.sleep(_POLL_S)


def is_held(folder: Path) -> bool:
    """Tell whether a process of the part whose folder this is still runs."""
    return is_locked(folder / _LOCK_NAME)


def forget_record(folder: Path) -> None:
    """Forget which process ran here."""
    (folder / _RECORD_NAME).unlink(missing_ok=True)


def _record(folder: Path) -> tuple[int, float, str] | None:
    try:
        record = json.loads((folder / _RECORD_NAME).read_text(encoding="utf-8"))
        return int(record["pid"]), float(record["created_at"]), str(record["fingerprint"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _holders(lock: Path) -> list[int]:
    """Return the processes that hold the lock of this file, not those that merely have it open for a moment."""
    return [pid for pid in psutil.pids() if any(_has_flock(pid, link, lock) for link in _open_files(pid))]


def _open_files(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return []


def _has_flock(pid: int, link: Path, lock: Path) -> bool:
    try:
        return link.readlink() == lock and "FLOCK" in Path(f"/proc/{pid}/fdinfo/{link.name}").read_text()
    except OSError:
        # This one file was closed meanwhile; the process's others still count.
        return False


def _ignore_gone(call: object, pid: int, number: signal.Signals) -> None:
    try:
        call(pid, number)  # type: ignore[operator]
    except ProcessLookupError:
        return
