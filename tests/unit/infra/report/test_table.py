"""The terminal shows text from outside as text, in 100 columns."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from infra.report.model import Report
from infra.report.table import COLUMNS, print_report
from tests.unit.infra.report import samples


def printed(report: Report, *, width: int = COLUMNS, is_terminal: bool = False) -> str:
    target = io.StringIO()
    print_report(
        report,
        Console(file=target, width=width, force_terminal=is_terminal, color_system="standard" if is_terminal else None),
    )
    return target.getvalue()


@pytest.mark.parametrize(
    "report",
    [samples.full(), samples.empty(), samples.red(), samples.hostile()],
    ids=["full", "empty", "red", "hostile"],
)
def test_no_line_is_wider_than_the_page(report):
    assert max(len(line) for line in printed(report).splitlines()) <= COLUMNS
    assert max(len(line) for line in printed(report, width=300).splitlines()) <= COLUMNS


def test_markup_emoji_codes_and_escapes_from_outside_are_only_text():
    text = printed(samples.hostile(), is_terminal=True)
    assert "[bold red]owned[/]" in text
    assert ":skull:" in text
    assert "\\x1b[2J" in text
    assert "\x1b[2J" not in text
    assert "\x1b]" not in text, "no title, no link"
    assert not re.sub(r"\x1b\[[0-9;]*m", "", text).count("\x1b"), "colours of ours alone"
    assert "\u202e" not in text


def test_every_part_is_there():
    text = printed(samples.full())
    for said in (
        "Verified: every store",
        "Proof",
        "Speed",
        "Latency",
        "Detection (real data)",
        "Alerts",
        "Memory (PSS)",
        "Lag in records",
        "Steps",
        "Links",
    ):
        assert said in text
    assert "+0.050 [+0.030, +0.070]" in text
    assert "221,208 rows read = 221,201 recorded + 0 held + 4 refused + 2 duplicates + 1 quarantined" in text


def test_a_store_that_differs_is_named_first():
    first = printed(samples.red()).splitlines()[:4]
    assert "Not verified: graph differs from the log" in first[1]
    assert "graph: sent: 3 rows implied, 2 stored" in first[2]


def test_an_empty_report_prints():
    text = printed(samples.empty())
    assert "no stage was measured" in text
    assert "no alert was raised" in text
    assert "nothing was judged" in text
