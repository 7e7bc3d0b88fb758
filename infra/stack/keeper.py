"""Keeps one part running: prepares, starts, asks whether it is ready, starts it again, stops it when told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from infra.stack import process
from infra.stack.errors import StackError
from infra.stack.part import Part
from infra.stack.state import PartStatus

TICK_S = 0.2
# Between two questions while a part comes up, and afterwards.
_PROBE_STARTING_S = 0.25
_PROBE_READY_S = 5.0
# A part that ends right after its start is started again ever later, up to this.
_BACKOFF_MAX_S = 20.0
_BACKOFF_FIRST_S = 0.25
# A run this long counts as healthy: the next restart is immediate again.
_HEALTHY_S = 30.0

_log = structlog.get_logger(__name__)


class Keeper:
    """One part and the thread that looks after it. `status()` may be read at any time."""

    def __init__(
        self,
        part: Part,
        env: Mapping[str, str],
        log: Path,
        is_ready: Callable[[str], bool],
    ) -> None:
        self.part = part
        self._env = env
        self._log_file = log
        self._is_ready = is_ready
        self._stop = threading.Event()
        self._status = PartStatus(is_worker=part.is_worker, fingerprint=part.fingerprint)
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=part.name, daemon=True)
        self._thread.start()

    def status(self) -> PartStatus:
        """Return a copy of what the part is doing."""
        with self._guard:
            return replace(self._status)

    def request_stop(self) -> None:
        """Ask the part to end; returns at once."""
        self._stop.set()

    @property
    def is_stopping(self) -> bool:
        """Tell whether the part was asked to end."""
        return self._stop.is_set()

    @property
    def has_ended(self) -> bool:
        """Tell whether the part has stopped for good."""
        return not self._thread.is_alive()

    def _say(self, **changes: object) -> None:
        with self._guard:
            self._status = replace(self._status, **changes)  # type: ignore[arg-type]

    def _run(self) -> None:
        # The outer loop of this part: whatever goes wrong is logged, shown and tried again.
        backoff_s = 0.0
        while not self._stop.wait(backoff_s):
            began = time.monotonic()
            try:
                if not self._wait_for_dependencies():
                    break
                running = self._start()
                if self._watch(running):
                    break
            except Exception as error:
                _log.warning("part_failed", part=self.part.name, error=str(error), error_type=type(error).__name__)
                self._say(state="waiting", is_ready=False, pid=None, detail=_one_line(error))
            is_healthy = time.monotonic() - began > _HEALTHY_S
            backoff_s = _BACKOFF_FIRST_S if is_healthy else min(_BACKOFF_MAX_S, max(_BACKOFF_FIRST_S, backoff_s * 2))
            if not self._stop.is_set():
                self._say(restarts=self.status().restarts + 1)
        if self.status().state != "finished":
            self._say(state="stopped", is_ready=False, pid=None)

    def _wait_for_dependencies(self) -> bool:
        while True:
            missing = [name for name in self.part.depends_on if not self._is_ready(name)]
            if not missing:
                return True
            self._say(state="waiting", detail=f"waits for {', '.join(missing)}")
            if self._stop.wait(TICK_S):
                return False

    def _start(self) -> process.RunningProcess:
        running = process.adopt(self.part)
        if running is None:
            self._say(state="starting", detail="prepares", is_ready=False)
            self.part.folder.mkdir(parents=True, exist_ok=True)
            self.part.prepare()
            running = process.start(self.part, self._env, self._log_file)
            _log.info("part_started", part=self.part.name, pid=running.pid)
        else:
            _log.info("part_adopted", part=self.part.name, pid=running.pid)
        self._say(state="starting", detail=None, pid=running.pid, created_at=running.created_at, started_at=time.time())
        return running

    def _watch(self, running: process.RunningProcess) -> bool:
        """Look after one run; tell whether the part is done for good."""
        next_probe = 0.0
        while True:
            if self._stop.is_set():
                self._end(running)
                return True
            code = running.exit_code()
            if code is not None:
                return self._ended(running, code)
            if time.monotonic() >= next_probe:
                self._probe()
                next_probe = time.monotonic() + (_PROBE_READY_S if self.status().is_ready else _PROBE_STARTING_S)
            self._stop.wait(TICK_S / 2)

    def _probe(self) -> None:
        was_ready = self.status().is_ready
        try:
            self.part.probe()
            if self.status().state == "starting":
                self.part.on_ready()
        except Exception as error:  # every client library has errors of its own; all of them mean "not yet"
            self._say(is_ready=False, detail=_one_line(error))
            if was_ready:
                _log.warning("part_not_answering", part=self.part.name, error=_one_line(error))
            return
        self._say(state="ready", is_ready=True, detail=None)
        if not was_ready:
            _log.info("part_ready", part=self.part.name)

    def _ended(self, running: process.RunningProcess, code: int) -> bool:
        process.forget_record(self.part.folder)
        last_exit = f"signal {-code}" if code < 0 else f"exit code {code}"
        _log.warning("part_ended", part=self.part.name, pid=running.pid, last_exit=last_exit)
        is_done = code == 0 and not self.part.restarts_after_success
        self._say(state="finished" if is_done else "waiting", is_ready=False, pid=None, last_exit=last_exit)
        return is_done

    def _end(self, running: process.RunningProcess) -> None:
        self._say(state="stopping", is_ready=False)
        running.signal(self.part.stop_signal)
        if not running.wait(self.part.stop_timeout_s):
            _log.warning("part_killed", part=self.part.name, timeout_s=self.part.stop_timeout_s)
        running.kill()
        running.wait(5.0)
        process.forget_record(self.part.folder)
        code = running.exit_code()
        self._say(state="stopped", pid=None, last_exit=None if code is None else f"exit code {code}")
        _log.info("part_stopped", part=self.part.name)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, StackError) else f"{type(error).__name__}: {text}"[:300]
