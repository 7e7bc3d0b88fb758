"""How soon one command is an event: from the call that sends it to a read_committed reader that holds the event, open loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence, Sized

import numpy as np

from infra.composition import Composition
from infra.kafka.producer import PlainProducer
from infra.kafka.source import KafkaSource
from infra.latency import SETTLE_S, Latency, LatencyError
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS

_POLL_S = 0.05


def command_visibility(composition: Composition, keys: Sequence[bytes], values: Sequence[bytes], rate: float) -> Latency:
    """Offer commands at `rate` a second to the running command handler and time their events, in milliseconds.

    A transaction's bytes pass the handler unchanged, so the event is known by its value: values must differ. The first is not timed: when
    its event is there, producer, handler and reader have their connections.

    Raises:
        LatencyError: no event arrived.
        LogError: Kafka does not answer.
    """
    start = composition.clients.admin.ends([TRANSACTION_EVENTS])
    source = KafkaSource(composition.clients.kafka, [TRANSACTION_EVENTS], "tidemark-visibility", "tidemark-visibility", is_alone=True)
    source.open(lambda: start, lambda: None, lambda: None)
    arrived: dict[bytes | None, float] = {}
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            # One record at a time: a poll for more would wait for them, and that wait is not the handler's.
            for batch in source.poll(1, _POLL_S):
                arrived.update(dict.fromkeys(batch.values, time.perf_counter()))
        source.close()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    producer = PlainProducer(composition.clients.kafka, linger_ms=0)
    producer.send(COMMANDS, keys[:1], values[:1])
    _wait_for(arrived, 1)
    sent: dict[bytes, float] = {}
    started = time.perf_counter()
    for i, (key, value) in enumerate(zip(keys[1:], values[1:], strict=True)):
        time.sleep(max(0.0, started + i / rate - time.perf_counter()))
        sent[value] = time.perf_counter()
        producer.send(COMMANDS, [key], [value])
    producer.flush()
    seconds = time.perf_counter() - started
    _wait_for(arrived, len(values))
    done.set()
    reader.join()
    found = [(arrived[value] - at) * 1000 for value, at in sent.items() if value in arrived]
    if not found:
        raise LatencyError("no event arrived: is the command handler running? `tidemark status` says")
    p50, p95, p99 = (round(float(value), 2) for value in np.percentile(found, [50, 95, 99]))
    return Latency(p50, p95, p99, len(found), len(sent), round(len(sent) / seconds, 1))


def _wait_for(arrived: Sized, count: int) -> None:
    deadline = time.monotonic() + SETTLE_S
    while len(arrived) < count and time.monotonic() < deadline:
        time.sleep(_POLL_S)
