"""The supervisor with short-lived commands in place of servers: real processes, no Java."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from infra.stack import process
from infra.stack.errors import StackBusy, StackError
from infra.stack.part import Part
from infra.stack.state import Desired, PartStatus, StackState, WorkerSpec
from infra.stack.supervisor import Supervisor

FOREVER = (sys.executable, "-c", "import time; time.sleep(600)")
DEADLINE_S = 90.0


class Bench:
    """One state folder, a supervisor in a thread, and servers made of plain commands."""

    def __init__(self, folder: Path) -> None:
        self.state = StackState(folder)
        self.state.create()
        self.parts: dict[str, Part] = {}
        self.supervisor = Supervisor(self.state, self._build)
        self._thread: threading.Thread | None = None

    def _build(self, state: StackState, name: str, desired: Desired) -> Part:
        if name not in self.parts:
            raise StackError(f"no part is named {name!r}")
        return self.parts[name]

    def part(self, name: str, argv: tuple[str, ...] = FOREVER, **options: object) -> Part:
        made = Part(name=name, argv=argv, env={}, folder=self.state.part_folder(name), **options)  # type: ignore[arg-type]
        self.parts[name] = made
        return made

    def want(self, *names: str, owner: tuple[int, float] | None = None, **workers: WorkerSpec) -> None:
        with self.state.change_desired() as box:
            box[0] = Desired(names, workers, owner)
        if self._thread is None:
            self._thread = threading.Thread(target=self.supervisor.run)
            self._thread.start()

    def status(self, name: str) -> PartStatus:
        return self.state.status().get(name, PartStatus())

    def until(self, is_so: Callable[[], object], what: str = "the condition") -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not is_so():
            assert time.monotonic() < deadline, f"{what} did not come; {self.state.status()}"
            time.sleep(0.02)

    def ready(self, *names: str) -> None:
        self.until(lambda: all(self.status(name).is_ready for name in names), f"{names} ready")

    def signalled(self, name: str, mark: Path) -> None:
        """Wait until a part has left its mark and is listed: it may be the faster of the two."""
        self.until(lambda: mark.exists() and self.status(name).pid, f"{name} and {mark.name}")

    def end(self) -> None:
        self.supervisor.request_end()
        if self._thread is not None:
            self._thread.join(DEADLINE_S * 2)
            assert not self._thread.is_alive()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "stack")
    yield made
    made.end()


def test_a_wanted_part_is_started_and_ready_only_when_its_probe_passes(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def probe() -> None:
        if not gate.exists():
            raise ConnectionError("closed")

    bench.part("a", probe=probe)
    bench.want("a")
    bench.until(lambda: "closed" in (bench.status("a").detail or ""))
    assert not bench.status("a").is_ready
    gate.touch()
    bench.ready("a")


def test_on_ready_runs_once_a_start_and_before_the_part_counts_as_ready(bench: Bench) -> None:
    seen: list[bool] = []
    bench.part("a", on_ready=lambda: seen.append(bench.status("a").is_ready))
    bench.want("a")
    bench.ready("a")
    assert seen == [False]
    os.kill(bench.status("a").pid or 0, signal.SIGKILL)
    bench.until(lambda: len(seen) == 2, "the second start")


def test_a_killed_part_returns_with_a_new_pid_and_the_restart_is_counted(bench: Bench) -> None:
    bench.part("a")
    bench.want("a")
    bench.ready("a")
    before = bench.status("a")
    os.kill(before.pid or 0, signal.SIGKILL)
    bench.until(lambda: bench.status("a").is_ready and bench.status("a").pid != before.pid)
    assert bench.status("a").restarts == before.restarts + 1
    assert bench.status("a").last_exit == "signal 9"


def test_a_part_that_ends_at_once_is_started_again_ever_later(bench: Bench) -> None:
    starts: list[float] = []
    bench.part("a", (sys.executable, "-c", "raise SystemExit(3)"), prepare=lambda: starts.append(time.monotonic()))
    bench.want("a")
    bench.until(lambda: len(starts) >= 4)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps[2] > gaps[0]
    assert bench.status("a").last_exit == "exit code 3"


def test_an_unwanted_part_is_asked_to_end_by_its_own_signal(bench: Bench, tmp_path: Path) -> None:
    mark = tmp_path / "asked"
    ready = tmp_path / "listening"
    code = (
        "import pathlib, signal, sys, time\n"
        f"def end(*_): pathlib.Path({str(mark)!r}).touch(); sys.exit(0)\n"
        f"signal.signal(signal.SIGINT, end); pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(600)"
    )
    bench.part("a", (sys.executable, "-c", code), stop_signal=signal.SIGINT)
    bench.want("a")
    bench.signalled("a", ready)
    pid = bench.status("a").pid or 0
    bench.want()
    bench.until(lambda: "a" not in bench.state.status())
    assert mark.exists()
    assert not psutil.pid_exists(pid)


def test_a_part_that_ignores_its_signal_is_killed_after_its_timeout(bench: Bench, tmp_path: Path) -> None:
    ready = tmp_path / "listening"
    code = (
        "import pathlib, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(ready)!r}).touch()\ntime.sleep(600)"
    )
    bench.part("a", (sys.executable, "-c", code), stop_timeout_s=0.3)
    bench.want("a")
    bench.signalled("a", ready)
    bench.want()
    bench.until(lambda: "a" not in bench.state.status())
    assert not process.is_held(bench.state.part_folder("a"))


def test_a_part_waits_for_what_it_depends_on_and_says_so(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def probe() -> None:
        if not gate.exists():
            raise ConnectionError

    bench.part("a", probe=probe)
    bench.part("b", depends_on=("a",))
    bench.want("a", "b")
    bench.until(lambda: bench.status("b").detail == "waits for a")
    assert bench.status("b").pid is None
    gate.touch()
    bench.ready("a", "b")


def test_workers_stop_before_servers(bench: Bench, tmp_path: Path) -> None:
    order = tmp_path / "order"

    def code(name: str) -> str:
        return (
            "import signal, sys, time\n"
            f"def end(*_): time.sleep(0.3); open({str(order)!r}, 'a').write({name!r}); sys.exit(0)\n"
            "signal.signal(signal.SIGTERM, end)\n"
            f"open({str(tmp_path / name)!r}, 'w').close()\n"
            "time.sleep(600)"
        )

    bench.part("server", (sys.executable, "-c", code("s")))
    bench.want("server", worker=WorkerSpec((sys.executable, "-c", code("w"))))
    bench.until(lambda: (tmp_path / "s").exists() and (tmp_path / "w").exists())
    bench.end()
    assert order.read_text() == "ws"


def test_a_worker_whose_command_changes_is_replaced(bench: Bench) -> None:
    bench.want(w=WorkerSpec(FOREVER, {"A": "1"}))
    bench.ready("w")
    before = bench.status("w").pid
    bench.want(w=WorkerSpec(FOREVER, {"A": "2"}))
    bench.until(lambda: bench.status("w").is_ready and bench.status("w").pid != before)


def test_a_worker_that_has_done_its_work_is_not_started_again(bench: Bench) -> None:
    bench.want(w=WorkerSpec((sys.executable, "-c", "pass"), restarts_after_success=False))
    bench.until(lambda: bench.status("w").state == "finished")
    assert bench.status("w").restarts == 0


def test_a_process_left_by_a_dead_supervisor_is_adopted(bench: Bench) -> None:
    part = bench.part("a")
    orphan = process.start(part, {}, bench.state.log("a"))
    bench.want("a")
    bench.ready("a")
    assert bench.status("a").pid == orphan.pid
    orphan.kill()
    orphan.wait(5)
    bench.until(lambda: bench.status("a").is_ready and bench.status("a").pid != orphan.pid)


def test_a_leftover_with_another_command_is_stopped_before_the_wanted_one_starts(bench: Bench) -> None:
    old = Part(name="a", argv=(*FOREVER, "old"), env={}, folder=bench.state.part_folder("a"))
    orphan = process.start(old, {}, bench.state.log("a"))
    bench.part("a")
    bench.want("a")
    bench.ready("a")
    assert orphan.exit_code() is not None
    assert bench.status("a").pid != orphan.pid


def test_a_leftover_that_opens_and_closes_files_all_the_time_is_found_and_asked_not_killed(bench: Bench, tmp_path: Path) -> None:
    goodbye = tmp_path / "goodbye"
    code = (
        "import os, pathlib, signal, sys\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(goodbye)!r}).touch(), sys.exit(0)))\n"
        f"pathlib.Path({str(tmp_path / 'started')!r}).touch()\n"
        "while True:\n"
        "    [os.close(one) for one in [os.open('/dev/null', os.O_RDONLY) for _ in range(50)]]\n"
    )
    part = Part(name="a", argv=(sys.executable, "-c", code), env={}, folder=bench.state.part_folder("a"))
    for _ in range(5):
        # The lock is then open under a number above those that come and go.
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(40)]
        leftover = process.start(part, {}, bench.state.log("a"))
        for one in held:
            os.close(one)
        bench.until((tmp_path / "started").exists)
        process.stop_holders(part.folder, timeout_s=DEADLINE_S)
        assert leftover.exit_code() is not None
        assert goodbye.exists()
        goodbye.unlink()
        (tmp_path / "started").unlink()


def test_a_child_that_outlives_its_parent_keeps_the_folder_locked(bench: Bench, tmp_path: Path) -> None:
    """A database's helper process still writes after its parent was killed: nothing may start beside it."""
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time, os\n"
        "fds = [int(f) for f in os.listdir('/proc/self/fd')]\n"
        f"p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], close_fds=False)\n"
        f"open({str(child)!r}, 'w').write(str(p.pid))\n"
        "time.sleep(600)"
    )
    part = bench.part("a", (sys.executable, "-c", code))
    running = process.start(part, {}, bench.state.log("a"))
    bench.until(lambda: child.exists() and child.read_text())
    running.signal(signal.SIGKILL)
    running.wait(5)
    assert process.is_held(part.folder)
    with pytest.raises(StackBusy, match="holds"):
        process.start(part, {}, bench.state.log("a"))
    process.stop_holders(part.folder, timeout_s=5)
    assert not process.is_held(part.folder)


def test_a_second_supervisor_on_the_same_folder_is_refused(bench: Bench) -> None:
    bench.part("a")
    bench.want("a")
    bench.ready("a")
    with pytest.raises(StackBusy, match="already runs"):
        Supervisor(StackState(bench.state.folder)).run()


def test_everything_stops_when_the_owner_has_gone(bench: Bench) -> None:
    bench.part("a")
    bench.want("a", owner=(2**22 + 1, 0.0))
    bench.until(lambda: not bench.state.is_supervised())
    assert not process.is_held(bench.state.part_folder("a"))


def test_a_failed_preparation_is_shown_and_tried_again(bench: Bench) -> None:
    tries: list[int] = []

    def prepare() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise StackError("the disk is full")

    bench.part("a", prepare=prepare)
    bench.want("a")
    bench.ready("a")
    assert len(tries) == 3


def test_an_unknown_part_is_named_and_the_others_run(bench: Bench) -> None:
    bench.part("a")
    bench.want("a", "zookeeper")
    bench.ready("a")
    assert "zookeeper" in (bench.status("zookeeper").detail or "")


def test_a_great_log_is_copied_aside_and_emptied(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.stack.supervisor.LOG_MAX_BYTES", 100)
    bench.state.log("a").write_bytes(b"x" * 200)
    bench.part("a")
    bench.want("a")
    bench.until(lambda: bench.state.log("a").stat().st_size < 100)
    assert bench.state.log("a").with_suffix(".log.1").stat().st_size == 200
