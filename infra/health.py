"""Whether a worker of this machine is up, by the status file that it keeps: what a container's health check asks.

A worker that stands still at its work ends itself (`infra.watchdog`), and one that fails says so and ends: whoever keeps it sees both. A
start may take as long as the log is long, and counts as well. No settings are read: no secret is fetched, however often it is asked.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

TIMEOUT_S = 5.0
_AT_WORK = ("ready", "running")
_NOT_YET = ("starting", "standby")  # the words of `infra.metrics`, whose libraries are not loaded for them


def trouble(file: Path) -> str | None:
    """What is wrong with the worker of this status file; none where it works, starts or stands by."""
    try:
        told = json.loads(file.read_text("utf-8"))
        state = told["state"]
    except (OSError, ValueError, TypeError, KeyError):
        return f"{file}: no worker has come up here yet"
    if state in _NOT_YET:
        return None
    if state not in _AT_WORK:
        return f"{told.get('worker')} is {state}: {told.get('last_error')}"
    try:
        # A file that a predecessor left names a port where nobody answers.
        urllib.request.urlopen(f"http://127.0.0.1:{int(told['metrics_port'])}/metrics", timeout=TIMEOUT_S).close()
    except (OSError, ValueError, KeyError) as error:
        return f"{told.get('worker')} does not answer: {error}"
    return None


def main() -> int:
    """Look at the worker of the status file that is named; 0 where it is well, else 1 and the reason on standard error."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m infra.health <state folder>/<stack>/workers/<worker>.json\n")
        return 2
    found = trouble(Path(sys.argv[1]))
    if found is None:
        return 0
    sys.stderr.write(f"{found}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
