"""`tidemark bench --replay`: how fast history is replayed, through a trained model's scores, through rules too, and through neither."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.table import Table

from domain.policy import DEFAULT, Policy
from infra.bench.measure import Stage
from infra.bench.own_stack import own_servers
from infra.bench.recorded import archive, record
from infra.composition import Composition
from infra.policy_files import read_policy
from infra.replay.run import NO_SCORES, ReplayRequest, replay
from infra.settings import Settings
from infra.stack import Stack
from infra.training import train_model
from schema_registry.contracts import PARTITIONS

REPETITIONS = 3
SCORED_SHARE = 0.15  # of the events, a repetition
REACH_SCORED, REACH_PLAIN = 5_000.0, 50_000.0


class ReplayBench:
    """One run in servers of its own, which are removed afterwards."""

    def __init__(self, settings: Settings, events: int, console: Console) -> None:
        self._settings, self._events, self._console = settings, events, console

    def run(self) -> dict[str, Any]:
        """Measure; returns the figures as plain values."""
        started = time.monotonic()
        scored = Stage("through scores, the budget alone", "5,000/s asked for", "1")
        ruled = Stage("through scores and the standard policy's rules", "5,000/s asked for", "1")
        plain = Stage("without scores or rules", "50,000/s asked for", "1")
        with own_servers(self._settings, ["kafka", "registry", "s3"]) as (composition, stack):
            composition.clients.admin.create(PARTITIONS)
            composition.clients.catalog = composition.clients.registry.establish()
            version = self._history(composition, stack)
            few = max(2_000, int(SCORED_SHARE * self._events))
            for repetition in range(REPETITIONS):
                for stage, policy, model, until, reach in (
                    (scored, DEFAULT, version, few, REACH_SCORED),
                    (ruled, read_policy("standard"), version, few, REACH_SCORED),
                    (plain, DEFAULT, NO_SCORES, self._events, REACH_PLAIN),
                ):
                    self._say(f"{stage.name}, {repetition + 1} of {REPETITIONS}")
                    stage.add(self._rate(composition, stack, policy, model, until), reach)
        stages = [stage.as_json() for stage in (scored, ruled, plain)]
        return {"events": self._events, "seconds": round(time.monotonic() - started, 1), "stages": stages}

    def _history(self, composition: Composition, stack: Stack) -> str:
        """Record, archive and train; returns the model's version."""
        self._say(f"{self._events:,} events to the log and the archive")
        record(composition, stack, self._events)
        self._say("training on the simulated labels")
        version = train_model(composition).model_version
        archive(composition)
        return version

    def _rate(self, composition: Composition, stack: Stack, policy: Policy, model: str, until: int) -> float:
        request = ReplayRequest(until=until, policies=(policy,), models=(model,))
        return float(replay(composition, request, folder=stack.state.folder / "replays").measured["transactions_per_s"])

    def _say(self, what: str) -> None:
        self._console.print(f"  {what}", style="dim", highlight=False)


def table(result: dict[str, Any]) -> Table:
    """The figures for a terminal: medians with their range."""
    shown = Table(
        title=f"Replay of {result['events']:,} simulated events, {result['seconds']:,.0f} s, median and range of {REPETITIONS}",
        title_justify="left",
    )
    for name in ("replay", "transactions/s", "asked for"):
        shown.add_column(name, justify="left" if name == "replay" else "right")
    for stage in result["stages"]:
        found, asked = stage["events_per_s"], stage["baseline_per_s"]
        shown.add_row(stage["name"], f"{found['median']:,.0f} ({found['min']:,.0f}–{found['max']:,.0f})", f"≥ {asked['median']:,.0f}")
    return shown
