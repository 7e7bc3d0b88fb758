"""A log whose warehouse has a live worker, traffic for it, and the moment when all has come to rest."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event

import psycopg

from domain.commands import DescribeWallet, LabelWallet
from domain.log import NewRecord
from infra.composition import Composition
from infra.simulator.delivery import commands
from infra.simulator.generator import SimulatorOptions, simulate
from projections.warehouse.sink import schema_of
from schema_registry.contracts import COMMANDS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

COUNT = 1_000


@contextmanager
def live_log(servers: SharedServers, parts: Sequence[str], drives: Sequence[str]) -> Iterator[OwnLog]:
    """`COUNT` transactions and a described wallet; `drives` have read them once, handler and warehouse go on as processes."""
    with own_log(servers, parts) as found:
        codec = RecordCodec(found.composition.clients.catalog)
        now = datetime.now(UTC)
        named = [LabelWallet("ethereum:0x1", "illicit", "test", now), DescribeWallet("ethereum:0x1", "contract", "Ann", None, "test", now)]
        found.composition.producer.append([NewRecord(COMMANDS, b"ethereum:0x1", codec.encode_event(command)) for command in named])
        found.simulate(COUNT, seed=3)
        for name in drives:
            found.drive(name)
        for name in ("command-handler", "warehouse"):
            found.stack.start_worker(name, [sys.executable, "-m", "infra.cli", "run", name])
        found.stack.wait_ready(["command-handler", "warehouse"])
        yield found


@contextmanager
def traffic(log: OwnLog) -> Iterator[None]:
    """Transactions that keep coming while the block runs; afterwards waits until the handler has recorded them."""
    stop, seed = Event(), time.time_ns() % 1_000_000

    def send() -> None:
        composition = log.fresh()
        chunks = commands(simulate(SimulatorOptions(count=5_000, seed=seed)), composition.clients.catalog)
        for chunk in chunks:
            for at in range(0, len(chunk.keys), 20):
                composition.producer.send(COMMANDS, chunk.keys[at : at + 20], chunk.values[at : at + 20])
                composition.producer.flush()
                if stop.wait(0.1):
                    return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def settle(log: OwnLog) -> Composition:
    """Wait until the log has come to rest and the warehouse's worker stands at its head; a composition that knows nothing older."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        composition = log.fresh()
        store = composition.warehouse()
        ends = composition.log.ends(store.topics)
        position = store.load_position()
        store.close()
        handled = composition.clients.admin.committed("tidemark-command-handler", [COMMANDS])
        is_quiet = handled.get((COMMANDS, 0), 0) >= composition.log.ends([COMMANDS])[COMMANDS, 0]
        if is_quiet and all(position.get(tp, 0) >= end for tp, end in ends.items()) and composition.log.ends(store.topics) == ends:
            return composition
        time.sleep(0.2)
    behind = {tp: (position.get(tp, 0), end) for tp, end in ends.items() if position.get(tp, 0) < end}
    raise AssertionError(f"the warehouse did not reach the head; position and end where it is behind: {behind}, handled: {handled}")


def is_green(log: OwnLog) -> bool:
    """Whether the live warehouse equals the log."""
    composition = settle(log)
    proof = composition.verifier().projection(composition.warehouse())
    assert proof.is_ok or proof.problems
    return proof.is_ok


def stored(composition: Composition, generation: int) -> int:
    """Transactions in one generation of the warehouse."""
    with psycopg.connect(composition.warehouse_dsn) as connection:
        row = connection.execute(f"SELECT count(*) FROM {schema_of(generation)}.fact_transaction").fetchone()
    assert row is not None
    return int(row[0])
