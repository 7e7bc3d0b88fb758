"""Runs of items that fit into one call: AWS bounds both their number and their bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


def batches(items: Iterable[_Item], most: int, most_bytes: int, size_of: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """The items in their order, at most so many and so many bytes a run (an item alone may have more)."""
    run: list[_Item] = []
    size = 0
    for item in items:
        length = size_of(item)
        if run and (len(run) == most or size + length > most_bytes):
            yield run
            run, size = [], 0
        run.append(item)
        size += length
    if run:
        yield run
