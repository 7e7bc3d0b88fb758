"""The demo on a small simulated file, whole: from rows to scores and alerts; again; and with its scoring workers killed."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from infra.composition import Composition
from infra.demo import EXIT_OK, Demo, DemoOptions
from infra.settings import Settings
from infra.simulator.delivery import commands, write_stream, write_truth
from infra.simulator.generator import SimulatorOptions, simulate
from infra.stack import PartDown
from schema_registry.contracts import CASE_EVENTS, COMMANDS, SCORE_EVENTS, TRANSACTION_EVENTS
from tests.conftest import bare_settings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROWS, MORE = 6_000, 600
DEADLINE_S = 240.0


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
    assert any((demo.stack.state.folder / "report").glob("*.json"))


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
    started = time.monotonic()
    status, demo, said = run(settings)
    assert status == EXIT_OK, said
    assert "Everything was done before" in said
    assert time.monotonic() - started < 60
    assert demo.composition.log.ends([COMMANDS, TRANSACTION_EVENTS, SCORE_EVENTS]) == ends
    redone = {"stack", "log", "verify"}
    assert {name: s for name, s in demo.steps.seconds().items() if name not in redone} == {
        name: s for name, s in seconds.items() if name not in redone
    }


def test_scorer_alerts_and_endpoint_killed_in_the_middle_score_everything_once(settings: Settings, first: tuple[int, Demo, str]) -> None:
    demo = Demo(settings, DemoOptions(), Console(quiet=True))
    demo.stack.up()
    composition = Composition(demo.stack.settings())
    sender = threading.Thread(target=_send_more, args=(composition,))
    sender.start()
    for name in ("scorer", "endpoint", "alerts", "scorer"):
        before = _scored(composition)
        _until(lambda before=before: _scored(composition) > before or not sender.is_alive(), "something is scored")  # type: ignore[misc]
        _kill(demo, name)
    sender.join()
    admin = composition.clients.admin
    for group, topic in (("command-handler", COMMANDS), ("scorer", TRANSACTION_EVENTS), ("alerts", SCORE_EVENTS)):
        _until(lambda g=group, t=topic: _is_at_head(composition, g, t), f"{group} reaches the head")  # type: ignore[misc]
    assert admin.committed("tidemark-scorer", [TRANSACTION_EVENTS])
    seqs = Counter(record["tx_seq"] for name, record, *_ in composition.log.events(SCORE_EVENTS) if name == "TransactionScored")
    assert set(seqs.values()) == {1}
    assert sorted(seqs) == list(range(min(seqs), min(seqs) + len(seqs)))
    raised = Counter(record["case_id"] for name, record, *_ in composition.log.events(CASE_EVENTS) if name == "AlertRaised")
    assert set(raised.values()) <= {1}
    stores = {"archive": composition.archive(), "warehouse": composition.warehouse(), "graph": composition.graph()}
    for name, store in stores.items():
        ends = composition.log.ends(store.topics)
        _until(lambda s=store, e=ends: _reached(s.load_position(), e), f"{name} reaches the head")  # type: ignore[misc]
    verifier = composition.verifier()
    proofs = [verifier.log(), verifier.archive(stores["archive"]), *(verifier.projection(stores[n]) for n in ("warehouse", "graph"))]
    assert {proof.store: proof.problems for proof in proofs if not proof.is_ok} == {}


def _send_more(composition: Composition) -> None:
    for chunk in commands(simulate(SimulatorOptions(count=MORE, seed=99)), composition.clients.catalog, chunk_rows=20):
        composition.producer.send(COMMANDS, chunk.keys, chunk.values)
        composition.producer.flush()
        time.sleep(0.5)  # some 15 s in all, so that there is work whenever a worker comes back


def _kill(demo: Demo, name: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            demo.stack.kill(name)
            return
        except PartDown:
            assert time.monotonic() < deadline, f"{name} does not run"
            time.sleep(0.1)


def _scored(composition: Composition) -> int:
    return sum(composition.clients.admin.ends([SCORE_EVENTS]).values())


def _is_at_head(composition: Composition, group: str, topic: str) -> bool:
    return _reached(composition.clients.admin.committed(f"tidemark-{group}", [topic]), composition.log.ends([topic]))


def _reached(position: Any, ends: Any) -> bool:
    return all(position.get(tp, 0) >= end for tp, end in ends.items())


def _until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline, f"{what} within {DEADLINE_S:.0f} s"
        time.sleep(0.1)
