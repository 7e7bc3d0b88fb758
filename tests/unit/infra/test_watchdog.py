"""A worker whose loop stands still in a call that never returns is ended, and says where it stood."""

from __future__ import annotations

import subprocess
import sys

import pytest

STUCK = """
import ctypes, sys
from infra.watchdog import Watched, release

class Source:
    def __init__(self, polls):
        self.left = polls
    def open(self, *callbacks):
        pass
    def poll(self, max_records, timeout_s):
        self.left -= 1
        if WHERE == "poll" and not self.left:
            hang()
        return []
    def close(self):
        if WHERE == "close":
            hang()

def hang():
    ctypes.CDLL(None).pause()  # keeps the thread in C, whatever signals Python has pending

WHERE = sys.argv[1]
source = Watched(Source(3), still_s=0.5)
source.open(None, None, None)
for _ in range(4):
    source.poll(1, 0.0)
source.close()
release()
print("ended by itself")
"""


@pytest.mark.parametrize("where", ["poll", "close"])
def test_a_call_that_never_returns_ends_the_process_with_its_place(where: str) -> None:
    found = subprocess.run([sys.executable, "-c", STUCK, where], capture_output=True, text=True, timeout=300)
    assert found.returncode == 1 and "ended by itself" not in found.stdout
    assert "Timeout" in found.stderr and "in hang" in found.stderr and f"in {where}" in found.stderr


def test_a_loop_that_goes_on_is_left_alone() -> None:
    found = subprocess.run([sys.executable, "-c", STUCK, "nowhere"], capture_output=True, text=True, timeout=300)
    assert (found.returncode, found.stdout) == (0, "ended by itself\n"), found.stderr
