"""The table and the chart of a growing history, from figures made by hand."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from typing import Any

import psutil
import pytest
from rich.console import Console

from infra.bench.history import PATHS, _tree_seconds, live_rate, table
from infra.bench.history_chart import history_chart


def cost(path: str, behind: int, rate: float, cpu_us: float) -> dict[str, Any]:
    return {
        "path": path, "behind": behind, "records": 1_000, "events_per_s": rate, "cpu_us": cpu_us, "worker_cpu_us": cpu_us,
        "peak_mib": 512.0,
    }  # fmt: skip


@pytest.fixture
def result() -> dict[str, Any]:
    steps = [cost(path, 1_000 * i, 1_000.0 * (i + 1), 10.0 + i) for i in range(3) for path in PATHS]
    return {
        "events": 3_000, "seconds": 9.0, "steps": steps, "rebuilds": [cost("warehouse", 3_000, 5_000.0, 4.0)],
        "restarts_s": {"archive": {"median": 1.5, "min": 1.25, "max": 1.75}},
    }  # fmt: skip


def test_the_table_holds_first_and_last_step_growth_rebuilds_beside_the_live_rate_and_restarts(result: dict[str, Any]) -> None:
    text = StringIO()
    Console(file=text, width=140).print(table(result))
    shown = text.getvalue()
    assert shown.count("1.20 × the first's µs") == len(PATHS)  # 12 µs after 10
    assert "2.50 × live" in shown  # 5,000 beside the median of 1,000, 2,000 and 3,000
    assert "1.50 s (1.25–1.75)" in shown


def test_the_live_rate_is_the_median_of_that_worker_alone(result: dict[str, Any]) -> None:
    result["steps"].append(cost("archive", 0, 99_000.0, 1.0))
    assert live_rate(result, "warehouse") == 2_000


def test_the_chart_is_a_png_also_where_a_worker_has_no_figures(result: dict[str, Any]) -> None:
    result["steps"] = [one for one in result["steps"] if one["path"] != "graph"]
    assert history_chart(result).startswith(b"\x89PNG")


def test_processor_time_counts_children_and_those_that_have_ended() -> None:
    child = "for i in range(6_000_000): pass"
    parent = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {child!r}]); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = _tree_seconds(process.pid)
        assert found > 2 * psutil.Process(process.pid).cpu_times().user
        process.kill()
    assert _tree_seconds(process.pid) == 0.0
