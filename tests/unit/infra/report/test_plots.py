"""Figures are PNG of a useful size, and each title says what data it shows."""

from __future__ import annotations

import json
import struct

import pytest

from infra.report import plots
from infra.report.model import Stage
from tests.unit.infra.report import samples


@pytest.fixture(scope="module")
def figures() -> dict[str, bytes]:
    return plots.draw(samples.full())


def size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the PNG's first chunk."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.mark.parametrize("name", ["detection", "throughput", "latency", "scores", "alerts"])
def test_each_figure_is_a_sharp_png(figures, name):
    width, height = size(figures[name])
    assert 1200 < width < 2200
    assert 400 < height < 1600
    assert len(figures[name]) > 10_000


def test_a_report_without_figures_draws_none():
    assert plots.draw(samples.empty()) == {}


def test_hostile_names_are_drawn():
    assert set(plots.draw(samples.hostile())) == {"alerts"}


@pytest.mark.parametrize(
    "chart",
    [plots.detection_chart, plots.throughput_chart, plots.latency_chart, plots.scores_chart, plots.alerts_chart],
    ids=lambda c: c.__name__,
)
def test_the_title_says_real_or_simulated(chart):
    report = samples.full()
    simulated = report.model_copy(update={"data": report.data.model_copy(update={"is_simulated": True})})
    assert "Real data" in json.dumps(chart(report).to_dict())
    assert "Simulated data" in json.dumps(chart(simulated).to_dict())


def test_rates_far_apart_are_on_a_log_axis_and_close_ones_from_0():
    near = samples.empty().model_copy(update={"stages": (Stage.measured("a", 10, 1.0), Stage.measured("b", 20, 1.0))})
    assert "log scale" in json.dumps(plots.throughput_chart(samples.full()).to_dict())
    assert "log scale" not in json.dumps(plots.throughput_chart(near).to_dict())
    assert size(plots.draw(near)["throughput"])[0] > 1000


def test_percentiles_are_drawn_where_no_distribution_was_kept():
    report = samples.full()
    assert report.latency_ms is not None
    bare = samples.empty().model_copy(update={"latency_ms": report.latency_ms.model_copy(update={"bins": ()})})
    assert set(plots.draw(bare)) == {"latency"}
    alone = samples.empty().model_copy(update={"latency_ms": report.latency_ms.model_copy(update={"bins": (), "echo": None})})
    assert set(plots.draw(alone)) == {"latency"}


def test_every_alert_is_in_a_bar():
    report = samples.full()
    rows = plots.alerts_chart(report).to_dict()["data"]["values"]
    assert sum(row["high"] - row["low"] for row in rows) == len(report.alerts)
