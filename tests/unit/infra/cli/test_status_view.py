"""The status on a screen: what wants attention is listed, the live view ends with Ctrl-C and outlives a server that is away."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from domain.errors import LogError
from infra.cli import output, status_view
from infra.cli.status_view import live, show_status
from infra.status import PartitionReport, ServerReport, StackReport, StatusReader, WorkerReport

SERVER = ServerReport("kafka", "ready", True, 1, 0, "127.0.0.1:1", None)


def report(*lags: int, quarantined: int = 0, count: int = 3) -> StackReport:
    parts = [
        PartitionReport("wallet-events", p, 10, 10 + lag, 2.5 if lag else 0.0, quarantined if p == 0 else 0)
        for p, lag in enumerate([*lags, *[0] * (count - len(lags))])
    ]
    position = {(part.topic, part.partition): part.position for part in parts}
    head = {(part.topic, part.partition): part.head for part in parts}
    lag = sum(lags)
    worker = WorkerReport("graph", "ready", 2, 0, position, head, lag, lag == 0, quarantined=quarantined)
    worker.partitions, worker.lag_s, worker.generation = parts, max(part.lag_s or 0.0 for part in parts), 3
    return StackReport("demo", "/x", True, [SERVER], [worker])


def partition_lines(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if "wallet-events" in line]


def test_partitions_that_are_behind_or_have_quarantine_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    show_status(report(0, 4, quarantined=1))
    lines = partition_lines(capsys.readouterr().out)
    assert [(line.split()[2], line.split()[-1]) for line in lines] == [("1", "behind"), ("0", "up")]
    assert "2.5" in lines[0]
    show_status(report(0, 4), is_whole=True)
    assert len(partition_lines(capsys.readouterr().out)) == 3
    show_status(report(*[1] * 30, count=30))
    shown = capsys.readouterr().out
    assert len(partition_lines(shown)) == status_view.PARTITIONS_SHOWN and "15 more partitions" in shown


class Looks:
    """A reader that gives or raises what it was told."""

    def __init__(self, *looks: StackReport | Exception) -> None:
        self.looks = list(looks)

    def report(self, settings: Any) -> StackReport:
        found = self.looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


class NoContext:
    settings = None


def test_the_live_view_looks_again_until_ctrl_c_and_leaves_the_last_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = Looks(report(9), LogError("Kafka does not answer"), report(0))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if not looks.looks:
            raise KeyboardInterrupt

    screen = io.StringIO()
    monkeypatch.setattr(output, "console", Console(file=screen, force_terminal=True, width=200, height=60))
    last = live(NoContext(), 0.5, reader=looks, sleep=sleep)  # type: ignore[arg-type]
    assert last.is_caught_up and slept == [0.5] * 4
    assert "Kafka does not answer" in screen.getvalue() and "behind" in screen.getvalue()
    assert "every worker was at the head" in capsys.readouterr().out.splitlines()[-1]


def test_paces_come_from_stored_positions_once_there_are_two_looks() -> None:
    now = [0.0]
    reader = StatusReader(None, monotonic=lambda: now[0])  # type: ignore[arg-type]

    def look(at: float, position: int, head: int) -> WorkerReport:
        now[0] = at
        part = PartitionReport("commands", 0, position, head, 1.0, 0)
        worker = WorkerReport("graph", "ready", records_per_s=7.0, lag=part.lag, partitions=[part])
        reader._paces([worker])
        return worker

    first = look(0.0, 100, 800)
    assert (first.records_per_s, first.eta_s) == (7.0, 100.0), "only the worker's own word is there"
    second = look(2.0, 300, 900)  # 100/s taken, but 50/s came in
    assert (second.records_per_s, second.eta_s) == (100.0, 12.0)
    third = look(4.0, 310, 2000)
    assert third.eta_s is None, "it does not get nearer"
    done = look(30.0, 2000, 2000)
    assert done.eta_s is None and done.lag == 0


@pytest.mark.parametrize(
    ("is_terminal", "options", "is_live"), [(True, [], True), (True, ["--once"], False), (True, ["--json"], False), (False, [], False)]
)
def test_the_live_view_is_the_default_on_a_terminal_alone(
    is_terminal: bool, options: list[str], is_live: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from infra.cli.app import run

    monkeypatch.setenv("TIDEMARK_STATE_DIR", str(tmp_path))
    drawn: list[float] = []

    def draw(context: Any, every: float, is_whole: bool, **_: Any) -> StackReport:
        drawn.append(every)
        return report(0)

    monkeypatch.setattr(status_view, "live", draw)
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal, raising=False)
    run(["status", *options])
    assert bool(drawn) == is_live
