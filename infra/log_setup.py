"""Makes a new cluster ready: topics, contracts and the archive's bucket; and the workers that keep the read models at the head."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from infra.composition import Composition
from infra.instances import demand_instance, process_name, worker_of
from infra.read_models import added
from infra.stack import Stack
from schema_registry.contracts import PARTITIONS

ALWAYS = ("command-handler", "archive", "curated", "warehouse", "graph", "rules", "notifier")
WITH_A_MODEL = ("scorer", "alerts")


def prepare_log(composition: Composition) -> list[str]:
    """Create what is missing; the second call changes nothing.

    Returns:
        The topics created.

    Raises:
        LogError: Kafka refuses, or a topic stands with fewer partitions.
        GrownElsewhere: a topic stands with more than the log knows.
        RegistryError: the registry disagrees with the code.
        StoreUnavailable: the bucket cannot be created.
    """
    created = composition.clients.admin.create(PARTITIONS)
    composition.clients.catalog = composition.clients.registry.establish()
    composition.partitions.of(PARTITIONS)
    composition.archive(1).prepare()
    return created


def start_workers(stack: Stack, composition: Composition, only: Sequence[str] | None = None) -> list[str]:
    """Keep every worker running that has something to do, installed projections too; those that need a model only once one is deployed.

    Args:
        only: just these, of the others none is started or stopped.

    Returns:
        The workers that run now.
    """
    if only is None:
        names = ALWAYS + tuple(added()) + (WITH_A_MODEL if composition.log.deployed() is not None else ())
    else:
        names = tuple(only)
    for name in names:
        stack.start_worker(name, _command(name, 1))
    return list(names)


def scale_worker(stack: Stack, name: str, count: int) -> tuple[list[str], list[str]]:
    """Keep `count` processes of a worker running in the stack; the highest numbers go first when there are fewer.

    Returns:
        The processes started and those stopped.

    Raises:
        InvalidValue: the worker cannot have so many.
        StackError: one does not stop.
    """
    if count:
        demand_instance(name, count)
    running = {worker_of(process)[1] for process in stack.state.desired().workers if worker_of(process)[0] == name}
    surplus = [process_name(name, instance) for instance in sorted(running, reverse=True) if instance > count]
    missing = [instance for instance in range(1, count + 1) if instance not in running]
    for process in surplus:
        stack.stop_worker(process)
    for instance in missing:
        stack.start_worker(process_name(name, instance), _command(name, instance))
    return [process_name(name, instance) for instance in missing], surplus


def _command(name: str, instance: int) -> list[str]:
    number = ["--instance", str(instance)] if instance > 1 else []
    return [sys.executable, "-m", "infra.cli", "run", name, *number]
