"""What is printed: outside text can neither forge a line nor speak to the terminal."""

from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from infra.cli import output

HOSTILE = "\x1b[2J[red]no[/] \u202e\r\n</td>[link=http://evil]x[/link]"


@given(st.text())
def test_safe_text_says_itself_and_holds_no_control_character(text: str) -> None:
    shown = Text.from_markup(f"[bold]{output.safe(text)}[/]").plain
    assert shown == output.plain(text)
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in shown)


def test_a_table_shows_hostile_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table("", ("name",), [(HOSTILE,)])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\\x1b[2J[red]no[/]" in shown


def test_fields_show_hostile_values_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields({"reason": HOSTILE})
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "[red]no[/]" in shown and len(shown.splitlines()) == 1


def test_an_error_goes_to_standard_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    output.fail(ValueError(HOSTILE))
    shown = capsys.readouterr()
    assert shown.out == "" and "\x1b[2J" not in shown.err


def test_json_is_one_document_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"name": HOSTILE})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"name": HOSTILE}
    assert shown.isascii() and "\x1b" not in shown


@pytest.mark.parametrize(("seconds", "said"), [(0, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (-1, "0 s")])
def test_time_spans_are_for_people(seconds: float, said: str) -> None:
    assert output.duration(seconds) == said


def test_csv_opened_in_a_spreadsheet_or_shown_on_a_terminal_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_csv(("name", "n"), [("=cmd()", -5), ("@x", None), (HOSTILE, 1.5), ("a,b", True)])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\u202e" not in shown
    rows = list(csv.reader(shown.splitlines()))
    assert rows[:3] == [["name", "n"], ["'=cmd()", "-5"], ["'@x", ""]]
    assert rows[4] == ["a,b", "True"]
