"""The main job: from a file of transactions to verified stores, live scores and alerts, as a list of steps that resumes."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from rich.console import Console

from domain.errors import TidemarkError
from domain.log import Position
from infra.composition import Composition
from infra.demo_data import DemoPlan, files_of, plan_of, simulated, stack_name
from infra.demo_steps import StepList
from infra.deployment import deploy_model
from infra.ingest import IngestProgress, ingest_file, ingest_labels
from infra.latency import measure
from infra.log_setup import prepare_log
from infra.pseudonym_key import pseudonym_key
from infra.report.memory import MemorySampler
from infra.report.model import Memory
from infra.settings import Settings
from infra.sources.reading import read, read_in_time_order
from infra.stack import Stack
from infra.training import train_model
from projections.verify import Proof
from schema_registry.contracts import CASE_EVENTS, COMMANDS, SCORE_EVENTS, TRANSACTION_EVENTS

STORES = ("archive", "warehouse", "graph")
SCORING = ("scorer", "alerts", "notifier")
PACED_PER_S = 200.0
PROGRESS_EVERY_S = 2.0
WAIT_S = 900.0  # how long a worker may make no progress at all before the demo gives up
EXIT_OK, EXIT_FAILED, EXIT_RED = 0, 1, 3


class Stalled(TidemarkError):
    """A worker makes no progress; the message names it and its log."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How the demo runs. `seed` fixes training and the simulator."""

    seed: int = 7


def run_demo(settings: Settings, options: DemoOptions, console: Console) -> int:
    """Run what is not done yet, verify, report; returns the exit status."""
    demo = Demo(settings, options, console)
    return demo.run()


class Demo:
    """One demo on one data file with its own stack."""

    def __init__(self, settings: Settings, options: DemoOptions, console: Console) -> None:
        self.options, self.console = options, console
        files = files_of(settings, settings.state_dir.parent)
        settings = settings.model_copy(update={"stack": stack_name(settings, files)})
        self._files = files or simulated(settings.stack_dir / "simulated", options.seed)
        self.stack = Stack.of(settings)
        self._given = settings
        self.memory: Memory | None = None
        self.steps = StepList(
            settings.stack_dir / "demo.json",
            {
                "data": str(self._files.data),
                "labels": str(self._files.labels),
                "span": settings.span,
                "size": settings.size,
                "seed": options.seed,
            },
        )

    @cached_property
    def plan(self) -> DemoPlan:
        """Which rows do what; read from the file once."""
        return plan_of(self._files, self._given)

    @cached_property
    def composition(self) -> Composition:
        """Parts on this stack's addresses; only after the stack is up."""
        return Composition(self.stack.settings())

    def run(self) -> int:
        """Do the steps that are missing, in order."""
        with MemorySampler(self._pids) as sampler:
            self._run_steps()
        self.memory = sampler.last
        from infra.demo_report import make_report

        report = make_report(self)
        return EXIT_OK if report.is_green else EXIT_RED

    def _pids(self) -> dict[str, int]:
        return {name: status.pid for name, status in self.stack.status().items() if status.pid is not None}

    def _run_steps(self) -> None:
        was_finished = self.steps.is_done("verify")
        if not self.steps.is_done("train"):
            threading.Thread(target=_import_training, name="import-training").start()
        self._always("stack", self._stack)
        self._always("log", self._log)
        self._step("ingest", "Ingest the rows before the cut as commands", self._ingest)
        for name in STORES:
            self._step(name, f"Project into the {name}", partial(self._project, name))
        self._step("first_verify", "Verify every store against the log", self._verify)
        if self.plan.has_labels:
            if self._given.size == "small":
                self._start("notifier")  # it needs no model, and the training leaves it room to come up
            self._step("train", "Train the graph network on labels known at the cut", self._train)
            self._step("deploy", "Deploy to the SageMaker-compatible endpoint", self._deploy)
            self._start(*SCORING)
            self._step("stream", "Stream the rows from the cut on", self._stream)
            self._step("latency", f"Offer {PACED_PER_S:.0f} transactions/s and time their scores", self._latency)
            self._step("settle", "Bring alerts and every store to the head", self._settle)
            self._step("judge", "Judge the scores beside the forest", self._judge)
        else:
            self.console.print("[yellow]No labels were given: nothing to learn from, so the demo ends after verification.[/]")
        self._start(*STORES)
        self._step("quality", "Check the warehouse with Great Expectations", self._quality)
        if was_finished:
            self.console.print("Everything was done before: verifying and reporting.")
        self._step("baselines", "Measure bare Kafka on the same records", self._baselines)
        self._always("verify", self._verify)

    # Steps. Each may be repeated: what it did before changes nothing.

    def _stack(self) -> dict[str, Any]:
        told: dict[str, str] = {}

        def progress(name: str, status: Any) -> None:
            if status.is_ready and told.get(name) != "ready":
                told[name] = "ready"
                self.console.print(f"  {name} ready", style="dim")

        self.stack.up(progress=progress)
        return {}

    def _log(self) -> dict[str, Any]:
        created = prepare_log(self.composition)
        self._start("command-handler")
        if self._given.size == "small":
            self._start(*STORES)  # a small run is mostly start-up: all at once; a full one times each store on its own
        return {"topics_created": created}

    def _ingest(self) -> dict[str, Any]:
        plan = self.plan
        started = time.monotonic()
        result = ingest_file(
            self.composition, str(plan.files.data), plan.files.mapping, ingest_id=self.steps.runs("ingest")[-1], known_at=plan.cut_at,
            first_row=plan.first, last_row=plan.cut, in_time_order=not plan.is_sorted,
            progress=self._ingest_progress(plan.cut - plan.first),
        )  # fmt: skip
        self._wait_commands()
        seconds = time.monotonic() - started
        labels = 0
        if plan.label_mapping is not None and plan.files.labels is not None:
            labels = ingest_labels(self.composition, str(plan.files.labels), known_at=plan.cut_at, only=plan.training).label_commands
            self._wait_commands()
        return {**result.as_json(), "label_commands": result.label_commands + labels, "until_recorded_s": round(seconds, 2)}

    def _project(self, name: str) -> dict[str, Any]:
        self._start(name)
        store = self._store(name)
        ends = self.composition.log.ends(store.topics)
        first = dict(store.load_position())
        todo = sum(max(0, end - first.get(tp, 0)) for tp, end in ends.items())
        started = time.monotonic()
        self._wait_store(name, ends)
        seconds = time.monotonic() - started
        return {"events": todo, "seconds": round(seconds, 2)}

    def _verify(self) -> dict[str, Any]:
        verifier = self.composition.verifier()
        proofs: list[Proof] = [verifier.log(), verifier.archive(self.composition.archive())]
        proofs += [verifier.projection(self._store(name)) for name in ("warehouse", "graph")]
        for proof in proofs:
            mark = "[green]equal[/]" if proof.is_ok else "[red]DIFFERS[/]"
            self.console.print(f"  {proof.store}: {mark} ({proof.records:,} records, {sum(proof.rows.values()):,} rows)", highlight=False)
            for problem in proof.problems[:3]:
                self.console.print(f"    {problem}", style="red", markup=False)
        return {"ok": all(proof.is_ok for proof in proofs), "stores": [proof.as_json() for proof in proofs]}

    def _train(self) -> dict[str, Any]:
        shown: set[str] = set()

        def progress(stage: str, share: float) -> None:
            if stage not in shown:
                shown.add(stage)
                self.console.print(f"  training: {stage}", style="dim")

        result = train_model(self.composition, seed=self.options.seed, at=self.plan.cut_at, progress=progress)
        return result.as_json()

    def _deploy(self) -> dict[str, Any]:
        return deploy_model(self.composition, self.stack).as_json()

    def _stream(self) -> dict[str, Any]:
        plan = self.plan
        started = time.monotonic()
        result = ingest_file(
            self.composition, str(plan.files.data), plan.files.mapping, ingest_id=self.steps.runs("stream")[-1], known_at=plan.cut_at,
            has_labels=False,
            first_row=plan.cut, last_row=plan.paced, in_time_order=not plan.is_sorted,
            progress=self._ingest_progress(plan.paced - plan.cut),
        )  # fmt: skip
        self._wait_commands()
        scored = self._wait_group("scorer", [TRANSACTION_EVENTS])
        return {**result.as_json(), "scored": scored, "until_scored_s": round(time.monotonic() - started, 2)}

    def _latency(self) -> dict[str, Any]:
        plan = self.plan
        keys: list[bytes] = []
        values: list[bytes] = []
        refused: Counter[str] = Counter()
        key = pseudonym_key(self.stack.state.folder) if plan.mapping.needs_key else None
        for chunk in (read if plan.is_sorted else read_in_time_order)(
            str(plan.files.data), plan.mapping, ingest_id=self.steps.runs("latency")[-1], catalog=self.composition.clients.catalog, key=key,
            first_row=plan.paced, last_row=plan.last,
        ):  # fmt: skip
            keys += chunk.keys
            values += chunk.values
            refused.update(row.reason for row in chunk.rejected)
        # Apart: what is timed is the road from event to score, not how two cores share five more workers. In a small demo stopping
        # and starting them would take longer than the measurement: it is taken beside them, and the report says so.
        is_apart = self._given.size != "small"
        for name in (*STORES, "alerts", "notifier") if is_apart else ():
            self.stack.stop_worker(name)
        try:
            latency = measure(self.composition, keys, values, PACED_PER_S)
        finally:
            self._start(*STORES, *SCORING)
        return {**latency.as_json(), "is_apart": is_apart, "rows_read": len(keys) + refused.total(), "refused": dict(refused)}

    def _settle(self) -> dict[str, Any]:
        self._wait_group("scorer", [TRANSACTION_EVENTS])
        self._wait_group("alerts", [SCORE_EVENTS])
        self._wait_commands()
        self._start(*STORES)
        for name in STORES:
            self._wait_store(name, self.composition.log.ends(self._store(name).topics))
        self._store("warehouse").refresh()
        return {"alerts": sum(1 for name, *_ in self.composition.log.events(CASE_EVENTS) if name == "AlertRaised")}

    def _judge(self) -> dict[str, Any]:
        from infra.judging import judge

        return judge(self.composition, self.plan, self.steps.result("train")["card"], self.options.seed)

    def _quality(self) -> dict[str, Any]:
        from projections.warehouse.expectations import validate_warehouse

        docs = self.stack.state.folder / "report" / "data-docs"
        found = validate_warehouse(self.composition.warehouse_dsn, docs)
        return {"tables": [str(validation) for validation in found], "docs": str(docs)}

    def _baselines(self) -> dict[str, Any]:
        from infra.bench.log_stages import bare_rates

        return bare_rates(self.composition)

    # How steps wait.

    def _start(self, *names: str) -> None:
        for name in names:
            self.stack.start_worker(name, [sys.executable, "-m", "infra.cli", "run", name])

    def _store(self, name: str) -> Any:
        if not hasattr(self, "_stores"):
            composition = self.composition
            self._stores = {"archive": composition.archive(), "warehouse": composition.warehouse(), "graph": composition.graph()}
        return self._stores[name]

    def _wait_commands(self) -> int:
        return self._wait_group("command-handler", [COMMANDS])

    def _wait_group(self, name: str, topics: list[str]) -> int:
        """Until a transformer has committed all that its topics hold now; returns how many records those are."""
        ends = self.composition.log.ends(topics)
        self._wait(name, ends, lambda: self.composition.clients.admin.committed(f"tidemark-{name}", topics))
        return sum(ends.values())

    def _wait_store(self, name: str, ends: Position) -> None:
        self._wait(name, ends, self._store(name).load_position)

    def _wait(self, name: str, ends: Position, position: Callable[[], Position]) -> None:
        moved_at, last = time.monotonic(), -1
        with self.console.status(f"  {name}") as status:
            while True:
                reached = position()
                left = sum(max(0, end - reached.get(tp, 0)) for tp, end in ends.items())
                if not left:
                    return
                now = time.monotonic()
                if left != last:
                    rate = (last - left) / (now - moved_at) if last > left else 0.0
                    eta = f", {left / rate:.0f} s left at {rate:,.0f}/s" if rate else ""
                    status.update(f"  {name}: {left:,} to go{eta}")
                    moved_at, last = now, left
                elif now - moved_at > WAIT_S:
                    raise Stalled(f"{name} made no progress for {WAIT_S:.0f} s: {self.stack.explain(name)}")
                time.sleep(0.25)

    def _ingest_progress(self, total: int) -> Callable[[IngestProgress], None]:
        told_at = time.monotonic()

        def show(report: IngestProgress) -> None:
            nonlocal told_at
            if report.sent < total and time.monotonic() - told_at < PROGRESS_EVERY_S:
                return
            told_at = time.monotonic()
            rate = report.sent / report.seconds if report.seconds else 0.0
            self.console.print(f"  {report.sent:,} of {total:,} commands sent, {rate:,.0f}/s", style="dim", highlight=False)

        return show

    def _always(self, name: str, step: Callable[[], dict[str, Any]]) -> None:
        started = time.monotonic()
        result = step()
        self.steps.done(name, time.monotonic() - started, result)

    def _step(self, name: str, title: str, step: Callable[[], dict[str, Any]]) -> None:
        if self.steps.is_done(name):
            return
        self.console.print(f"[bold]{title}[/]")
        self.steps.begin(name)
        started = time.monotonic()
        result = step()
        seconds = time.monotonic() - started
        self.steps.done(name, seconds, result)
        self.console.print(f"  done in {seconds:.1f} s", style="dim", highlight=False)


def _import_training() -> None:
    """Ten seconds of imports that the training needs, taken while the demo waits for servers and stores."""
    with suppress(ImportError, OSError):  # what is missing is said by the step that needs it
        import lightgbm  # noqa: F401

        import ml.training  # noqa: F401
