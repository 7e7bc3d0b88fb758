"""`tidemark bench --spark`: the engine and Spark side by side, Kafka to Parquet on the same topic, cores and rows; and Spark's scoring."""

from __future__ import annotations

import time
from contextlib import closing
from threading import Event
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.bench.measure import Stage, rate
from infra.bench.own_stack import own_servers
from infra.bench.recorded import archive, record
from infra.composition import Composition
from infra.settings import Settings
from infra.spark.environment import spark_environment
from infra.spark.models import train
from infra.spark.run import SparkRunner
from infra.spark.scores import score_stream
from infra.stack import Stack
from projections.runner import Runner
from schema_registry.column_codec import arrow_schema
from schema_registry.contracts import PARTITIONS, TRANSACTION_EVENTS

REPETITIONS = 3
REACH, REACH_JOB = "3 x Spark asked for", 20_000.0
BATCH = 200_000  # records of Spark's micro-batch: larger ones were no faster


class SparkBench:
    """One run in servers of its own, which are removed afterwards."""

    def __init__(self, settings: Settings, events: int, console: Console) -> None:
        self._settings, self._events, self._console = settings, events, console

    def run(self) -> dict[str, Any]:
        """Measure; returns the figures as plain values."""
        installed = spark_environment(self._say)
        started = time.monotonic()
        raw, decoded = Stage("records as they are (the archive)", "Spark", REACH), Stage("decoded (the curated table)", "Spark", REACH)
        steady_raw, steady_decoded = (
            Stage(raw.name, "Spark, first batch left out", REACH),
            Stage(decoded.name, "Spark, first batch left out", REACH),
        )
        scored, steady_scored = (
            Stage(f"Spark's scoring, to Postgres and DynamoDB{without}", "20,000/s asked for", "1")
            for without in ("", ", first batch left out")
        )
        with own_servers(self._settings, ["kafka", "registry", "s3", "postgres", "aws"]) as (composition, stack):
            composition.clients.admin.create(PARTITIONS)
            composition.clients.catalog = composition.clients.registry.establish()
            runner = SparkRunner(composition, installed)
            self._history(composition, stack)
            for repetition in range(REPETITIONS):
                for name, all_of_it, steady in (("raw", raw, steady_raw), ("decoded", decoded, steady_decoded)):
                    self._say(f"{all_of_it.name}, {repetition + 1} of {REPETITIONS}")
                    ours = self._archived(composition, 11 + repetition) if name == "raw" else self._curated(composition, 11 + repetition)
                    theirs = self._spark(runner, name, repetition)
                    all_of_it.add(ours, theirs["records"] / theirs["seconds"])
                    if theirs["steady_records"]:
                        steady.add(ours, theirs["steady_records"] / theirs["steady_seconds"])
            self._say("training Spark's regression")
            train(runner, 0.2, 1.0, self._say)
            self._say("scoring all of it with Spark")
            for stage, measured in zip((scored, steady_scored), self._scoring(runner), strict=True):
                stage.add(measured, REACH_JOB)
        stages = [stage.as_json() for stage in (raw, steady_raw, decoded, steady_decoded, scored, steady_scored)]
        return {
            "events": self._events,
            "cores": self._settings.spark.cores,
            "seconds": round(time.monotonic() - started, 1),
            "stages": stages,
        }

    def _history(self, composition: Composition, stack: Stack) -> None:
        """Record labels and transactions, and archive them."""
        self._say(f"{self._events:,} events to the log and the archive")
        record(composition, stack, self._events)
        archive(composition)

    def _archived(self, composition: Composition, generation: int) -> float:
        archive = composition.archive(generation)
        archive.prepare()
        archive.topics = (TRANSACTION_EVENTS,)
        return self._engine(composition, "archive", archive, f"bench-archive-{generation}")

    def _curated(self, composition: Composition, generation: int) -> float:
        with closing(composition.curated(generation)) as curated:
            curated.load_position()
            return self._engine(composition, "curated", curated, f"bench-curated-{generation}")

    def _engine(self, composition: Composition, name: str, store: Any, group: str) -> float:
        worker = composition.sink(name, store, group)
        ends = composition.log.ends([TRANSACTION_EVENTS])
        return rate(self._events, lambda: Runner(worker.source, worker.work, worker.policy).run(Event(), ends))

    def _spark(self, runner: SparkRunner, name: str, repetition: int) -> dict[str, Any]:
        settings = runner.composition.settings
        spec = {
            **runner.spec("TransactionRecorded"), "decodes": name == "decoded", "batch": BATCH,
            "out": f"s3a://{settings.s3.bucket}/bench-spark/{name}-{repetition}",
            "partitions": PARTITIONS[TRANSACTION_EVENTS], "leaves": arrow_schema("TransactionRecorded").names,
        }  # fmt: skip
        found = runner.run("to_parquet", spec)
        if found["records"] != self._events:
            raise RuntimeError(f"expected Spark to write {self._events} records, found {found['records']}")
        return found

    def _scoring(self, runner: SparkRunner) -> tuple[float, float]:
        """Records a second from the first micro-batch's start to the last one's commit; and the same without the first, in which Java
        compiles."""
        ended: list[tuple[float, int, float]] = []

        def told(line: dict[str, Any]) -> None:
            if line["kind"] == "batch":
                ended.append((time.monotonic(), line["records"], line["seconds"]))

        score_stream(runner, threshold=None, once=True, batch=BATCH, told=told)
        (first_at, first, took), (last_at, _, _) = ended[0], ended[-1]
        records = sum(records for _, records, _ in ended)
        return records / (last_at - first_at + took), (records - first) / (last_at - first_at)

    def _say(self, what: str) -> None:
        self._console.print(f"  {what}", style="dim", highlight=False)


def table(result: dict[str, Any]) -> Table:
    """The figures for a terminal: medians with their range."""
    shown = Table(
        title=f"Engine and Spark, {result['events']:,} events, {result['cores']} cores each, {result['seconds']:,.0f} s in all;"
        f" median and range of {REPETITIONS}",
        title_justify="left",
    )
    for name in ("Kafka to Parquet", "beside", "events/s", "its events/s", "ratio"):
        shown.add_column(name, justify="left" if name in ("Kafka to Parquet", "beside") else "right")
    for stage in result["stages"]:
        cells = [
            f"{found['median']:,.{digits}f} ({found['min']:,.{digits}f}–{found['max']:,.{digits}f})" if found else "–"
            for found, digits in ((stage["events_per_s"], 0), (stage["baseline_per_s"], 0), (stage["ratio"], 2))
        ]
        shown.add_row(stage["name"], stage["baseline"], *cells)
    return shown
