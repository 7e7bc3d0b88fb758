"""Memory is counted once, by name, and its peak is kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from infra.report.memory import MemorySampler, memory_of

_HOLD = "import sys; held = bytearray(b'x' * {mib} * 1024 * 1024); print('ready', flush=True); sys.stdin.read()"
_PARENT = (
    "import subprocess, sys;"
    " p = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE);"
    "p.stdout.readline(); print(p.pid, flush=True); sys.stdin.read(); p.stdin.close(); p.wait()"
)


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """A small process, by pid, whose child, by pid, holds 60 MiB."""
    code = _PARENT.format(child=_HOLD.format(mib=60))
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        yield parent.pid, int(parent.stdout.readline())
        assert parent.stdin is not None
        parent.stdin.close()


def test_a_process_counts_with_its_children(family):
    found = memory_of({"part": family[0]})
    assert 60 < found.by_process["part"] < 120
    assert found.total == found.by_process["part"]


def test_a_named_child_counts_for_itself_alone(family):
    parent, child = family
    found = memory_of({"parent": parent, "child": child})
    assert found.by_process["child"] > 60
    assert found.by_process["parent"] < 40


def test_a_process_that_has_ended_counts_0():
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert memory_of({"gone": ended.pid}).by_process == {"gone": 0.0}
    assert memory_of({}).total == 0.0


def test_the_sampler_keeps_the_largest_total(family):
    pids = {"parent": family[0], "child": family[1]}
    with MemorySampler(lambda: pids, interval_s=0.01) as sampler:
        del pids["child"], pids["parent"]
        sampler.sample()
    peak, last = sampler.peak, sampler.last
    assert peak is not None
    assert last is not None
    assert peak.peak_total == peak.total == last.peak_total
    assert "child" in peak.by_process
    assert "child" not in last.by_process
