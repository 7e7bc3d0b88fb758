"""Makes a new cluster ready: topics, contracts and the archive's bucket; and the workers that keep the read models at the head."""

from __future__ import annotations

import sys

from infra.composition import Composition
from infra.read_models import added
from infra.stack import Stack
from schema_registry.contracts import PARTITIONS

ALWAYS = ("command-handler", "archive", "curated", "warehouse", "graph")
WITH_A_MODEL = ("scorer", "alerts", "notifier")


def prepare_log(composition: Composition) -> list[str]:
    """Create what is missing; the second call changes nothing.

    Returns:
        The topics created.

    Raises:
        LogError: Kafka refuses, or a topic stands with another number of partitions.
        RegistryError: the registry disagrees with the code.
        StoreUnavailable: the bucket cannot be created.
    """
    created = composition.clients.admin.create(PARTITIONS)
    composition.clients.catalog = composition.clients.registry.establish()
    composition.archive(1).prepare()
    return created


def start_workers(stack: Stack, composition: Composition) -> list[str]:
    """Keep every worker running that has something to do, installed projections too; those that need a model only once one is deployed.

    Returns:
        The workers that run now.
    """
    names = ALWAYS + tuple(added()) + (WITH_A_MODEL if composition.log.deployed() is not None else ())
    for name in names:
        stack.start_worker(name, [sys.executable, "-m", "infra.cli", "run", name])
    return list(names)
