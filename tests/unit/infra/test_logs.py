"""Logs: JSON for machines, and nothing from outside can forge or colour a line on a terminal."""

from __future__ import annotations

import json

import pytest
import structlog

from infra import logs


@pytest.fixture(autouse=True)
def _restore() -> object:
    yield
    structlog.reset_defaults()


def test_json_holds_the_event_and_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", is_json=True)
    structlog.get_logger().info("batch_applied", records=3)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["records"], line["level"]) == ("batch_applied", 3, "info")
    assert line["logged_at"].endswith("Z")


def test_a_lower_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", is_json=True)
    structlog.get_logger().info("unseen")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("hostile", ["\x1b[31mred", "a\nforged line", "\u202egnp.exe", "\x9b2J", "\x7f"])
def test_control_characters_are_written_out_on_a_terminal(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", is_json=False)
    structlog.get_logger().info("refused", wallet_id=hostile, reasons=[hostile])
    line = capsys.readouterr().err
    assert hostile not in line
    assert line.count("\n") == 1


def test_escape_keeps_ordinary_text() -> None:
    assert logs.escape_control("Zürich → 東京 'x'") == "Zürich → 東京 'x'"


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="loud"):
        logs.configure("loud")
