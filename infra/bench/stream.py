"""Simulated commands without end: one stream after another, each with a seed of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from infra.simulator.delivery import commands
from infra.simulator.generator import Simulation, SimulatorOptions, simulate
from schema_registry.catalog import SchemaCatalog

SEED = 7
_LATER = 300_000  # transactions of each stream after the first


class Stream:
    """Framed commands with their keys, taken in order.

    Args:
        first: transactions of the first stream, whose labels are in `simulation`.
    """

    def __init__(self, catalog: SchemaCatalog, first: int) -> None:
        self._catalog = catalog
        self.simulation = simulate(SimulatorOptions(count=first, seed=SEED))
        self._records = self._all(self.simulation)

    def take(self, count: int) -> tuple[list[bytes], list[bytes]]:
        """The next `count` keys and values."""
        keys: list[bytes] = []
        values: list[bytes] = []
        for key, value in islice(self._records, count):
            keys.append(key)
            values.append(value)
        return keys, values

    def _all(self, simulation: Simulation) -> Iterator[tuple[bytes, bytes]]:
        seed = SEED
        while True:
            for chunk in commands(simulation, self._catalog):
                yield from zip(chunk.keys, chunk.values, strict=True)
            seed += 1
            simulation = simulate(SimulatorOptions(count=_LATER, seed=seed))
