"""The road from Kinesis: what a warm ingestion function takes, and how long a record is on its way."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from typing import Any

from infra.bench.measure import Stage
from infra.composition import Composition
from infra.lambdas.functions import FUNCTIONS
from infra.lambdas.kinesis_ingestion import INGESTION
from infra.lambdas.kinesis_journey import Item, journey
from infra.lambdas.kinesis_road import prepare
from infra.lambdas.serving import hosted
from infra.latency import Latency
from infra.simulator.delivery import as_json_records
from infra.simulator.generator import SimulatorOptions, simulate

ASKED_PER_S = 2_000.0
BATCH = 500
CALLS = 12
RATE_PER_S, JOURNEY_S = 200.0, 30


def function_stage(composition: Composition, stage: Stage, seed: int) -> float:
    """Call the function with batches of its own; the first is cold and is not counted. Returns the cold start in milliseconds."""
    prepare(composition.clients)
    items = _items((CALLS + 1) * BATCH, seed)
    with hosted(FUNCTIONS[INGESTION], composition.settings) as host:
        cold = host.invoke(_event(items[:BATCH]))
        started = time.perf_counter()
        for at in range(BATCH, len(items), BATCH):
            host.invoke(_event(items[at : at + BATCH]))
        stage.add(CALLS * BATCH / (time.perf_counter() - started), ASKED_PER_S)
    return (cold.init_ms or 0.0) + cold.duration_ms


def kinesis_visibility(composition: Composition, seed: int) -> Latency:
    """Milliseconds from a record's put to its event in Kafka, function and handler running."""
    items = [Item(key, data, tx_id) for key, data, tx_id in _items(int(RATE_PER_S * JOURNEY_S), seed)]
    journey(composition, items[:1], 1.0)
    return journey(composition, items[1:], RATE_PER_S)[0]


def _items(count: int, seed: int) -> list[tuple[str, bytes, str]]:
    simulation = simulate(SimulatorOptions(count=count, seed=seed))
    found = [item for part in as_json_records(simulation) for item in part.items]
    return [(key, data, tx_id) for (key, data), tx_id in zip(found, simulation.table["tx_id"].to_pylist(), strict=True)][:count]


def _event(items: Sequence[tuple[str, bytes, str]]) -> dict[str, Any]:
    now = time.time()
    return {
        "Records": [
            {
                "kinesis": {
                    "partitionKey": key, "sequenceNumber": tx_id, "data": base64.b64encode(data).decode(),
                    "approximateArrivalTimestamp": now,
                },
                "eventSource": "aws:kinesis", "eventID": f"shardId-000000000000:{tx_id}",
                "eventSourceARN": "arn:aws:kinesis:us-east-1:000000000000:stream/tidemark-transactions",
            }
            for key, data, tx_id in items
        ]
    }  # fmt: skip
