"""Several processes of one worker: what they are called, and what each worker does with company."""

from __future__ import annotations

import re

from domain.errors import InvalidValue

STANDING_BY = ("command-handler", "scorer", "alerts", "rules")
"""Of these one process works and the others wait to take over: their order is the whole log's. All other workers share partitions."""
MOST = 99
_PROCESS = re.compile(r"(?P<worker>[a-z0-9-]+)(\.(?P<instance>[1-9][0-9]?))?")


def process_name(worker: str, instance: int) -> str:
    """What one process of a worker is called in the stack, its log and its status: the first like the worker, the next `<worker>.2`."""
    return worker if instance == 1 else f"{worker}.{instance}"


def worker_of(process: str) -> tuple[str, int]:
    """The worker and the instance behind a process's name; any other name is its own first instance."""
    found = _PROCESS.fullmatch(process)
    return (found["worker"], int(found["instance"] or 1)) if found is not None else (process, 1)


def demand_instance(worker: str, instance: int) -> None:
    """Demand that a worker can have this many processes.

    Raises:
        InvalidValue: the number is out of range, or the worker keeps to one.
    """
    if not 1 <= instance <= MOST:
        raise InvalidValue("instance", f"expected a number of 1 to {MOST}, found {instance}")
    if worker == "notifier" and instance > 1:
        raise InvalidValue("instance", "the notifier keeps what it sent in a file of its machine: it has one instance and no standby")
