"""Memory as the machine sees it: PSS by part, a part being a process with all its descendants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType

import psutil

from infra.report.model import Memory

MIB = 1024 * 1024
SAMPLE_S = 1.0  # reading PSS walks every mapping of every process: a few ms each, so no oftener


def memory_of(pids: Mapping[str, int]) -> Memory:
    """PSS of each named process and its descendants, in MiB.

    A process that has ended counts 0. One whose mappings may not be read counts its RSS, which is never below its PSS.
    A process below two names counts for the one named closest to it.
    """
    owner_by_pid = {pid: name for name, pid in pids.items()}
    counted: dict[int, float] = {}
    total_by_name = dict.fromkeys(pids, 0.0)
    for name, pid in pids.items():
        for process in _own_tree(pid, owner_by_pid):
            if process.pid not in counted:
                counted[process.pid] = _pss_mib(process)
                total_by_name[name] += counted[process.pid]
    by_process = {name: round(mib, 1) for name, mib in total_by_name.items()}
    return Memory(total=round(sum(total_by_name.values()), 1), by_process=by_process)


class MemorySampler:
    """Reads the memory of named processes again and again and keeps the reading with the largest total.

    A context manager: sampling runs in a thread inside the `with` block.

    Args:
        pids: the processes as of now; asked at each sample, because workers start and stop.
        interval_s: seconds between samples.
    """

    def __init__(self, pids: Callable[[], Mapping[str, int]], interval_s: float = SAMPLE_S) -> None:
        self._pids, self._interval_s = pids, interval_s
        self._peak: Memory | None = None
        self._last: Memory | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)

    def __enter__(self) -> MemorySampler:
        self.sample()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped.set()
        self._thread.join()

    def sample(self) -> Memory:
        """Read once, now."""
        found = memory_of(self._pids())
        self._last = found
        if self._peak is None or found.total > self._peak.total:
            self._peak = found
        return found

    @property
    def peak(self) -> Memory | None:
        """The reading with the largest total, whose `peak_total` is its total; None before the first."""
        return self._peak.model_copy(update={"peak_total": self._peak.total}) if self._peak else None

    @property
    def last(self) -> Memory | None:
        """The newest reading, with the peak of all; None before the first."""
        return self._last.model_copy(update={"peak_total": self._peak.total}) if self._last and self._peak else None

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self.sample()


def _own_tree(pid: int, owner_by_pid: Mapping[int, str]) -> list[psutil.Process]:
    """A process and its descendants, without the trees of other named processes."""
    found: list[psutil.Process] = []
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        try:
            process = psutil.Process(current)
            waiting += [child.pid for child in process.children() if child.pid not in owner_by_pid]
        except psutil.NoSuchProcess:
            continue
        found.append(process)
    return found


def _pss_mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / MIB
    except psutil.AccessDenied:
        return _rss_mib(process)
    except psutil.NoSuchProcess:
        return 0.0


def _rss_mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / MIB
    except psutil.Error:
        return 0.0
