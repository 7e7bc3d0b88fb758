"""The bench: its own stack, a simulated stream of two million events, three repetitions of each stage, ratios and a table."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from domain.commands import LabelWallet
from infra.bench.bookkeeping import bookkeeping
from infra.bench.kinesis_stage import JOURNEY_S, function_stage, kinesis_visibility
from infra.bench.kinesis_stage import RATE_PER_S as KINESIS_RATE_PER_S
from infra.bench.log_stages import archive_stage, command_stage, decode_stage
from infra.bench.measure import Stage
from infra.bench.own_stack import own_stack
from infra.bench.store_stages import graph_stage, warehouse_stage
from infra.bench.stream import Stream
from infra.bench.visibility import command_visibility
from infra.composition import Composition
from infra.deployment import deploy_model
from infra.lambdas.kinesis_ingestion import INGESTION
from infra.lambdas.kinesis_road import start as start_function
from infra.latency import Latency, measure
from infra.settings import Settings
from infra.stack import Stack
from infra.training import train_model
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec

REPETITIONS = 3
GRAPH_SHARE = 0.025  # of the events, a repetition: the graph takes thousands a second, not hundreds of thousands
WAREHOUSE_SHARE = 0.3  # of the log, a repetition
SCORED_SHARE = 0.01  # of the events, a repetition
RATE_PER_S = 200.0
LATENCY_S = 60
VISIBILITY_S = 30


class Bench:
    """One run of the bench in a stack of its own, which is removed afterwards."""

    def __init__(self, settings: Settings, events: int, console: Console) -> None:
        self._settings, self._events, self._console = settings, events, console
        self._stack: Stack
        self._graph_events = max(2_000, int(GRAPH_SHARE * events))
        self._scored_events = max(1_000, int(SCORED_SHARE * events))
        self._visibility: Latency | None = None
        self._kinesis: Latency | None = None
        self._cold_ms = 0.0
        self._bookkeeping: dict[str, dict[str, Any]] = {}

    def run(self) -> dict[str, Any]:
        """Measure everything; returns the figures as plain values."""
        started = time.monotonic()
        with own_stack(self._settings) as (composition, self._stack):
            stages, latency = self._measure(composition)
        seconds = round(time.monotonic() - started, 1)
        return {
            "events": self._events, "seconds": seconds, "stages": [stage.as_json() for stage in stages], "latency_ms": latency,
            "visibility_ms": self._visibility.as_json() if self._visibility is not None else None,
            "kinesis_ms": self._kinesis.as_json() if self._kinesis is not None else None, "cold_start_ms": round(self._cold_ms, 1),
            "bookkeeping": self._bookkeeping,
        }  # fmt: skip

    def _measure(self, composition: Composition) -> tuple[list[Stage], dict[str, Any]]:
        commands_ = Stage("commands to events", "bare acknowledged produce", "0.25")
        decoded = Stage("columnar decode", "fastavro", "10")
        archive = Stage("Kafka to raw archive", "bare consume-and-join", "0.6")
        warehouse = Stage("Kafka to warehouse", "bare ADBC load of the same rows", "0.8")
        graph = Stage("Kafka to wallet graph", "bare UNWIND load", "0.9")
        scorer = Stage("scorer, streaming", "1,000 tx/s asked for", "1")
        function = Stage("ingestion function, warm", "2,000 records/s asked for", "1")
        stream = Stream(composition.clients.catalog, self._graph_events * REPETITIONS)
        folder = self._stack.state.folder / "bench-handler"
        start: dict[tuple[str, int], int] = {}
        for repetition in range(REPETITIONS):
            self._say(f"wallet graph {repetition + 1} of {REPETITIONS}")
            keys, values = stream.take(self._graph_events)
            command_stage(composition, Stage("", "", ""), keys, values, folder)
            until = dict(composition.log.ends([TRANSACTION_EVENTS]))
            graph_stage(composition, graph, start, until, is_bare_first=bool(repetition % 2))
            start = until
        latency = self._scoring(composition, stream, scorer, folder)
        for repetition in range(REPETITIONS):
            self._say(f"ingestion function {repetition + 1} of {REPETITIONS}")
            self._cold_ms = function_stage(composition, function, 1_000 + repetition)
        left = (self._events - self._graph_events * REPETITIONS - 3 * self._scored_events) // REPETITIONS
        for repetition in range(REPETITIONS):
            self._say(f"commands and decoding {repetition + 1} of {REPETITIONS}")
            keys, values = stream.take(left)
            command_stage(composition, commands_, keys, values, folder)
            decode_stage(composition, decoded, values)
        until = {tp: int(end * WAREHOUSE_SHARE) for tp, end in composition.log.ends([TRANSACTION_EVENTS]).items()}
        for repetition in range(REPETITIONS):
            self._say(f"archive and warehouse {repetition + 1} of {REPETITIONS}")
            archive_stage(composition, archive, 100 + repetition)
            warehouse_stage(composition, warehouse, 100 + repetition, 200 + repetition, until)
        self._say("bookkeeping")
        self._bookkeeping = bookkeeping(composition, stream, folder)
        return [commands_, decoded, archive, warehouse, graph, scorer, function], latency

    def _scoring(self, composition: Composition, stream: Stream, stage: Stage, folder: Path) -> dict[str, Any]:
        self._worker("command-handler")
        codec = RecordCodec(composition.clients.catalog)
        at = stream.simulation.table["occurred_at"][0].as_py()
        labels = [LabelWallet(wallet, label, "simulator", at) for wallet, label in stream.simulation.labels.items()]
        composition.producer.send(COMMANDS, [x.wallet_id.encode() for x in labels], [codec.encode_event(x) for x in labels])
        composition.producer.flush()
        self._wait(lambda: composition.clients.admin.committed("tidemark-command-handler", [COMMANDS]), composition.log.ends([COMMANDS]))
        self._say(f"visibility: {VISIBILITY_S} s of commands at {RATE_PER_S:.0f}/s")
        self._visibility = command_visibility(composition, *stream.take(int(RATE_PER_S * VISIBILITY_S)), RATE_PER_S)
        self._say(f"from Kinesis: {JOURNEY_S} s of records at {KINESIS_RATE_PER_S:.0f}/s")
        start_function(self._stack)
        self._kinesis = kinesis_visibility(composition, 2_000)
        self._stack.stop_worker(INGESTION)
        self._say("training on the simulated labels")
        train_model(composition)
        deploy_model(composition, self._stack)
        self._worker("scorer")
        for repetition in range(REPETITIONS):
            self._say(f"scorer {repetition + 1} of {REPETITIONS}")
            keys, values = stream.take(self._scored_events)
            if repetition == 0:  # let it come up: reading the history is not scoring
                composition.producer.send(COMMANDS, keys[:100], values[:100])
                self._scored(composition)
                keys, values = keys[100:], values[100:]
            composition.producer.send(COMMANDS, keys, values)
            composition.producer.flush()
            began = time.perf_counter()
            self._scored(composition)
            stage.add(len(values) / (time.perf_counter() - began), 1_000.0)
        paced = int(RATE_PER_S * LATENCY_S)
        self._say(f"latency: {LATENCY_S} s at {RATE_PER_S:.0f}/s with the model")
        model = measure(composition, *stream.take(paced), RATE_PER_S)
        self._say(f"latency: {LATENCY_S} s at {RATE_PER_S:.0f}/s with an echo")
        echo = self._echo(composition, stream.take(paced))
        for name in ("scorer", "endpoint", "echo", "command-handler"):
            self._stack.stop_worker(name)
        return {"model": model.as_json(), "echo": echo.as_json()}

    def _echo(self, composition: Composition, offered: tuple[list[bytes], list[bytes]]) -> Latency:
        port = self._stack.state.port("endpoint", "http") + 1
        self._stack.start_worker("echo", [sys.executable, "-m", "infra.bench.echo", str(port)])
        self._stack.stop_worker("scorer")
        self._worker("scorer", {"TIDEMARK_ENDPOINT__URL": f"http://127.0.0.1:{port}"})
        composition.producer.send(COMMANDS, offered[0][:100], offered[1][:100])
        self._scored(composition)
        return measure(composition, offered[0][100:], offered[1][100:], RATE_PER_S)

    def _scored(self, composition: Composition) -> None:
        composition.producer.flush()
        admin = composition.clients.admin
        self._wait(lambda: admin.committed("tidemark-command-handler", [COMMANDS]), composition.log.ends([COMMANDS]))
        ends = composition.log.ends([TRANSACTION_EVENTS])
        self._wait(lambda: admin.committed("tidemark-scorer", [TRANSACTION_EVENTS]), ends)

    def _wait(self, position: Callable[[], Any], ends: Any) -> None:
        while any(position().get(tp, 0) < end for tp, end in ends.items()):
            time.sleep(0.1)

    def _worker(self, name: str, env: dict[str, str] | None = None) -> None:
        self._stack.start_worker(name, [sys.executable, "-m", "infra.cli", "run", name], env)

    def _say(self, what: str) -> None:
        self._console.print(f"  {what}", style="dim", highlight=False)


def table(result: dict[str, Any]) -> Table:
    """The figures for a terminal: medians with their range."""
    shown = Table(
        title=f"{result['events']:,} simulated events, {result['seconds']:,.0f} s, median and range of {REPETITIONS}", title_justify="left"
    )
    for name in ("stage", "events/s", "bare/s", "ratio", "reach"):
        shown.add_column(name, justify="left" if name == "stage" else "right")
    for stage in result["stages"]:
        cells = [_cell(stage[key], digits) for key, digits in (("events_per_s", 0), ("baseline_per_s", 0), ("ratio", 2))]
        shown.add_row(f"{stage['name']} ({stage['baseline']})", *cells, f"≥ {stage['reach']}")
    visible = result["visibility_ms"]
    if visible is not None:
        text = f"p50 {visible['p50']} ms, p99 {visible['p99']} ms"
        shown.add_row(f"command sent → event visible, {visible['offered_per_s']:.0f} tx/s", text, "", "", "p50 ≤ 12, p99 ≤ 30")
    kinesis = result["kinesis_ms"]
    if kinesis is not None:
        text = f"p50 {kinesis['p50']} ms, p99 {kinesis['p99']} ms"
        shown.add_row(f"Kinesis record put → event in Kafka, {kinesis['offered_per_s']:.0f} tx/s", text, "", "", "p99 < 1000")
    shown.add_row("ingestion function, first call after a cold start", f"{result['cold_start_ms']} ms", "", "", "–")
    for name, by_size in result["bookkeeping"].items():
        for size, share in by_size.items():
            if share is not None:
                text = f"{share['median']:.1%} ({share['min']:.1%}–{share['max']:.1%})"
                shown.add_row(f"share of {name}'s time that moves its checkpoint, batches of {int(size):,}", text, "", "", "≤ 5 %")
    for name, latency in result["latency_ms"].items():
        text = f"p50 {latency['p50']} ms, p99 {latency['p99']} ms"
        shown.add_row(f"event appended → score appended, {latency['offered_per_s']:.0f} tx/s, {name}", text, "", "", "p50 < 40, p99 < 150")
    return shown


def write(result: dict[str, Any], file: Path) -> None:
    """The figures as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def _cell(value: dict[str, float] | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value['median']:,.{digits}f} ({value['min']:,.{digits}f}–{value['max']:,.{digits}f})"
