"""The crypto road as one command: stream, function and workers up, simulated records, bad and repeated ones too, and what came of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infra.composition import Composition
from infra.lambdas.functions import FUNCTIONS
from infra.lambdas.kinesis_ingestion import INGESTION
from infra.lambdas.kinesis_journey import Item, journey
from infra.lambdas.kinesis_road import prepare, start, state
from infra.lambdas.serving import log_file
from infra.latency import LatencyError
from infra.log_setup import prepare_log, start_workers
from infra.read_your_write import token_now, wait_for
from infra.simulator.delivery import as_json_records
from infra.simulator.generator import SimulatorOptions, simulate
from infra.stack import Stack

READ_MODELS = ("archive", "warehouse", "graph")
REPEATED = 0.01  # of the records come twice, as a producer's retry sends them
_STORES_S = 300.0
_BAD = (b"\x00\xffno json at all", b'{"version": 99}', b'{"version": 1, "tx_id": "ethereum:?"}')


@dataclass(frozen=True, slots=True)
class RoadReport:
    """What was put, what became of it, and how long it took (milliseconds from Kinesis to the event in Kafka; none without events)."""

    put: int
    transactions: int
    events: int
    repeated: int
    bad: int
    dead_letters: int
    p50_ms: float | None
    p99_ms: float | None
    stores_s: float
    landed_objects: int
    function_log: str

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


def run(
    stack: Stack,
    composition: Composition,
    count: int,
    rate: float,
    seed: int,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> RoadReport:
    """Walk the road. Safe to repeat: another seed gives other transactions, the same one adds none.

    Raises:
        LatencyError: the function does not come up.
        TidemarkError: a server does not answer.
    """
    prepare_log(composition)
    start_workers(stack, composition)
    prepare(composition.clients)
    start(stack)
    before = state(composition.clients)
    items = _items(count, seed)
    say("starting the function, once with a record of its own")
    journey(composition, _items(1, int(time.time()) + seed), 1.0)
    say(f"{len(items):,} records at {rate:,.0f}/s, among them {len(_BAD)} that are no transactions")
    try:
        latency, events = journey(composition, items, rate, lambda sent: progress(sent, len(items)))
    except LatencyError:  # walked before with this seed: the log has all of them
        latency, events = None, 0
    say(f"waiting for {', '.join(READ_MODELS)}")
    began = time.monotonic()
    token = token_now(composition)
    for name in READ_MODELS:
        wait_for(token, name, _STORES_S, composition=composition)
    stores_s = time.monotonic() - began
    after = state(composition.clients)
    transactions = len({item.tx_id for item in items if item.tx_id is not None})
    return RoadReport(
        len(items), transactions, events, len(items) - len(_BAD) - transactions, len(_BAD), after.dead_letters - before.dead_letters,
        latency.p50 if latency else None, latency.p99 if latency else None, round(stores_s, 1), _landed(composition),
        str(log_file(composition.settings, FUNCTIONS[INGESTION])),
    )  # fmt: skip


def _items(count: int, seed: int) -> list[Item]:
    """Transactions in order of time, every hundredth a second time right after, bad records in the middle."""
    simulation = simulate(SimulatorOptions(seed=seed, count=max(count, 100)))
    tx_ids = simulation.table["tx_id"].to_pylist()
    good = [Item(key, data, tx_id) for tx_id, (key, data) in zip(tx_ids, _all(simulation), strict=True)][:count]
    every = round(1 / REPEATED)
    items = [again for at, item in enumerate(good) for again in ([item, item] if at % every == every - 1 else [item])]
    middle = len(items) // 2
    bad = [Item(f"bad-{n}", data, None) for n, data in enumerate(_BAD)] if count > 1 else []
    return [*items[:middle], *bad, *items[middle:]]


def _all(simulation: Any) -> list[tuple[str, bytes]]:
    return [item for part in as_json_records(simulation) for item in part.items]


def _landed(composition: Composition) -> int:
    bucket = composition.settings.kinesis.landing
    pages = composition.clients.aws("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="raw/")
    return sum(page.get("KeyCount", 0) for page in pages)
