"""A log of our own for tests that use the real topics: a stack in its own folder, fed by the simulator, driven in this process."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from domain.log import Position
from infra.composition import Composition
from infra.log_setup import prepare_log
from infra.simulator.delivery import commands
from infra.simulator.generator import SimulatorOptions, simulate
from infra.stack import Stack
from projections.runner import Runner
from projections.verify import Proof
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS
from tests.conftest import bare_settings
from tests.shared_servers import SharedServers


@dataclass
class OwnLog:
    """A stack whose log holds what a test put there."""

    stack: Stack
    composition: Composition

    def simulate(self, count: int, seed: int, *, is_new: bool = True) -> None:
        """Send simulated transactions and let the handler record them, or not where they are no news to it."""
        for chunk in commands(simulate(SimulatorOptions(count=count, seed=seed)), self.composition.clients.catalog):
            self.composition.producer.send(COMMANDS, chunk.keys, chunk.values)
        self.composition.producer.flush()
        before = sum(self.ends([TRANSACTION_EVENTS]).values())
        self.drive("command-handler")
        if not is_new:
            return
        deadline = time.monotonic() + 180
        # A committed transaction is visible a moment after the commit has returned.
        while sum(self.ends([TRANSACTION_EVENTS]).values()) < before + count and time.monotonic() < deadline:
            time.sleep(0.05)

    def drive(self, name: str) -> None:
        """Run a worker in this process until it has reached the head as it is now."""
        worker = self.composition.worker(name)
        Runner(worker.source, worker.work, worker.policy).run(Event(), until=self.ends(worker.work.topics))

    def ends(self, topics: Sequence[str]) -> Position:
        """The head of the log."""
        return self.composition.log.ends(topics)

    def fresh(self) -> Composition:
        """A composition that has read nothing yet, as another process has."""
        return Composition(self.stack.settings())

    def verify(self, store: Any) -> Proof:
        """Prove a store equal to the log."""
        return self.composition.verifier().projection(store)


@contextmanager
def own_log(servers: SharedServers, parts: Sequence[str]) -> Iterator[OwnLog]:
    """A log on these servers, which are emptied for it; topics and contracts are there. Its workers are stopped at the end."""
    servers.emptied(parts)
    try:
        with _prepared(servers.stack) as found:
            yield found
    finally:
        servers.stop_workers()


@contextmanager
def own_servers(parts: Sequence[str], before_up: Callable[[Stack], None] = lambda stack: None) -> Iterator[OwnLog]:
    """As `own_log`, on servers that nobody else uses, before or after: for whoever damages them. They take some twenty seconds to start.

    Args:
        before_up: told of the stack before any server of it runs.
    """
    folder = Path(tempfile.mkdtemp(prefix="tidemark-own-"))
    stack = Stack.of(bare_settings(folder, "own"))
    try:
        before_up(stack)
        stack.up(parts, is_tethered=True)
        with _prepared(stack) as found:
            yield found
    finally:
        stack.down()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _prepared(stack: Stack) -> Iterator[OwnLog]:
    composition = Composition(stack.settings())
    prepare_log(composition)
    found = OwnLog(stack, composition)
    try:
        yield found
    finally:
        found.composition.close()
