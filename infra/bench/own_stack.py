"""A stack for one bench alone, removed afterwards with all that was measured in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from infra.composition import Composition
from infra.settings import Settings
from infra.stack import Stack
from schema_registry.contracts import PARTITIONS

NAME = "bench"


@contextmanager
def own_stack(settings: Settings) -> Iterator[tuple[Composition, Stack]]:
    """Start every server anew, with topics, schemas and bucket.

    Raises:
        StackError: a server does not come up or go down.
    """
    with own_servers(settings) as (composition, stack):
        composition.clients.admin.create(PARTITIONS)
        composition.clients.catalog = composition.clients.registry.establish()
        composition.archive().prepare()
        yield composition, stack


@contextmanager
def own_servers(settings: Settings, parts: Sequence[str] | None = None) -> Iterator[tuple[Composition, Stack]]:
    """Start servers anew, by default all; what an interrupted bench left would be measured too, so it goes first.

    Raises:
        StackError: a server does not come up or go down.
    """
    stack = Stack.of(settings.model_copy(update={"stack": NAME}))
    composition: Composition | None = None
    try:
        stack.down()
        shutil.rmtree(stack.state.folder, ignore_errors=True)
        stack.up(parts, progress=lambda name, status: None)
        composition = Composition(stack.settings())
        yield composition, stack
    finally:
        if composition is not None:
            composition.close()
        stack.down()
        shutil.rmtree(stack.state.folder, ignore_errors=True)
