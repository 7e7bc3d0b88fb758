"""The demo on a small simulated file, whole: from rows to scores and alerts; again; and with its scoring workers killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from infra.composition import Composition
from infra.demo import EXIT_OK, SCORING, Demo, DemoOptions
from infra.settings import Settings
from infra.simulator.delivery import write_stream, write_truth
from infra.simulator.generator import SimulatorOptions, simulate
from schema_registry.contracts import COMMANDS, SCORE_EVENTS, TRANSACTION_EVENTS
from tests.conftest import bare_settings
from tests.e2e.crash_matrix import STEPS, CrashMatrix
from tests.integration.infra.own_log import OwnLog

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROWS, MORE = 6_000, 600
DEADLINE_S = 480.0


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    folder = Path(tempfile.mkdtemp(prefix="tidemark-demo-"))
    simulation = simulate(SimulatorOptions(count=ROWS, seed=5))
    data, labels = folder / "stream.parquet", folder / "labels.csv"
    write_stream(simulation, data)
    write_truth(simulation, labels, folder / "schemes.jsonl")
    given = bare_settings(folder / "state", "demo").model_copy(update={"data": data, "labels": labels, "size": "small"})
    stack = Demo(given, DemoOptions(), Console(quiet=True)).stack
    try:
        stack.up(["kafka"], is_tethered=True)  # dies with this process, however that ends
        yield given
    finally:
        stack.down()
        shutil.rmtree(folder, ignore_errors=True)


def run(settings: Settings) -> tuple[int, Demo, str]:
    """A run as `tidemark demo` makes it, and what it printed."""
    console = Console(record=True, width=160, force_terminal=False)
    demo = Demo(settings, DemoOptions(), console)
    return demo.run(), demo, console.export_text()


@pytest.fixture(scope="module")
def first(settings: Settings) -> tuple[int, Demo, str]:
    """A demo that was interrupted once, after its rows were sent and before the step was done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Demo, "_wait_commands", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    return run(settings)


def _interrupted(demo: Demo) -> int:
    raise KeyboardInterrupt


def test_it_ends_green_with_scores_alerts_and_a_report(first: tuple[int, Demo, str]) -> None:
    status, demo, said = first
    assert status == EXIT_OK, said
    proof = demo.steps.result("verify")
    assert proof["ok"]
    assert {store["store"] for store in proof["stores"]} >= {"log", "archive", "warehouse"}
    assert demo.steps.result("judge")
    assert not demo.steps.result("latency")["is_apart"]  # no worker was stopped for it, and the report must not claim so
    assert any((demo.stack.state.folder / "report").glob("*.json"))
    dashboard = (demo.stack.state.folder / "report" / "dashboard.html").read_text("utf-8")
    assert "True up to" in dashboard and 'id="volume-title"' in dashboard and "dashboard.html" in said


def test_rows_are_all_accounted_for(first: tuple[int, Demo, str]) -> None:
    _, demo, _ = first
    plan = demo.plan
    before, streamed, paced = (demo.steps.result(name) for name in ("ingest", "stream", "latency"))
    assert before["rows_read"] + streamed["rows_read"] + paced["rows_read"] == plan.last - plan.first
    proof = demo.composition.verifier().log()
    assert proof.is_ok, proof.problems
    refused = sum(sum(step["refused"].values()) for step in (before, streamed, paced))
    assert proof.excluded["recorded"] + refused == plan.last - plan.first
    rows = json.loads((demo.stack.state.folder / "report" / "report.json").read_text("utf-8"))["accounting"]
    # The interrupted attempt had sent its rows: the second time each was a duplicate, and the equation says so.
    assert (rows["read"], rows["read_again"], rows["elsewhere"]) == (plan.last - plan.first, before["commands"], 0)
    assert rows["duplicates"] == rows["read_again"] > 0


def test_a_second_run_verifies_and_reports_without_redoing(settings: Settings, first: tuple[int, Demo, str]) -> None:
    ends = first[1].composition.log.ends([COMMANDS, TRANSACTION_EVENTS, SCORE_EVENTS])
    seconds = dict(first[1].steps.seconds())
    status, demo, said = run(settings)
    assert status == EXIT_OK, said
    assert "Everything was done before" in said
    assert demo.composition.log.ends([COMMANDS, TRANSACTION_EVENTS, SCORE_EVENTS]) == ends
    redone = {"stack", "log", "verify"}
    assert {name: s for name, s in demo.steps.seconds().items() if name not in redone} == {
        name: s for name, s in seconds.items() if name not in redone
    }


def test_scorer_alerts_and_notifier_killed_at_every_step_score_everything_once(settings: Settings, first: tuple[int, Demo, str]) -> None:
    demo = Demo(settings, DemoOptions(), Console(quiet=True))
    demo.stack.up()
    for name in SCORING:
        demo.stack.stop_worker(name)
    matrix = CrashMatrix(OwnLog(demo.stack, demo.composition), SCORING, random.Random(5))
    matrix.send(MORE)
    _until(lambda: _is_at_head(demo.composition, "command-handler", COMMANDS), "the handler has recorded what was sent")
    matrix.sweep()
    for name in SCORING:
        demo.stack.start_worker(name, [sys.executable, "-m", "infra.cli", "run", name])
    _until_all_read(demo)
    matrix.judge()
    assert matrix.outcome.missed == []
    assert matrix.outcome.problems == []
    assert set(matrix.outcome.kills) == {(name, step) for name in SCORING for step in STEPS[name]}


def test_an_endpoint_killed_while_it_is_asked_loses_no_score(settings: Settings, first: tuple[int, Demo, str]) -> None:
    demo = Demo(settings, DemoOptions(), Console(quiet=True))
    composition = demo.composition
    _until(lambda: _is_at_head(composition, "scorer", TRANSACTION_EVENTS), "the scorer is at the head")
    pid = demo.stack.status()["endpoint"].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # whoever asks now waits for an answer
    matrix = CrashMatrix(OwnLog(demo.stack, composition), SCORING, random.Random(6))
    matrix.send(100)
    _until(lambda: _is_at_head(composition, "command-handler", COMMANDS), "the handler has recorded what was sent")
    _until(lambda: _is_asked(demo.stack.state.port("endpoint", "http")), "the endpoint is asked")
    demo.stack.kill("endpoint")
    assert not _is_at_head(composition, "scorer", TRANSACTION_EVENTS)
    _until_all_read(demo)
    matrix.judge()
    assert matrix.outcome.problems == []


def _is_asked(port: int) -> bool:
    """Whether bytes that nobody has read lie in a connection to this port."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if state == "01" and int(local.partition(":")[2], 16) == port and int(queues.partition(":")[2], 16):
            return True
    return False


def _is_at_head(composition: Composition, group: str, topic: str) -> bool:
    return _reached(composition.clients.admin.committed(f"tidemark-{group}", [topic]), composition.log.ends([topic]))


def _reached(position: Any, ends: Any) -> bool:
    return all(position.get(tp, 0) >= end for tp, end in ends.items())


def _until_all_read(demo: Demo) -> None:
    """Until every worker has read all there is, in the order in which one's output is another's input."""
    composition = demo.composition
    for group, topic in (
        ("command-handler", COMMANDS),
        ("scorer", TRANSACTION_EVENTS),
        ("alerts", SCORE_EVENTS),
        ("command-handler", COMMANDS),
    ):
        _until(lambda g=group, t=topic: _is_at_head(composition, g, t), f"{group} reaches the head")  # type: ignore[misc]
    for name, store in (("archive", composition.archive()), ("warehouse", composition.warehouse()), ("graph", composition.graph())):
        ends = composition.log.ends(store.topics)
        _until(lambda s=store, e=ends: _reached(s.load_position(), e), f"{name} reaches the head")  # type: ignore[misc]


def _until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline, f"{what} within {DEADLINE_S:.0f} s"
        time.sleep(0.1)
