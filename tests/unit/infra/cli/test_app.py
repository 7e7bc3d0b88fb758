"""How a command ends: one sentence, one exit status, no traceback unless asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from domain.errors import CommandRefused, Fenced, LogError
from graph.errors import GraphUnavailable
from infra.cli import exits
from infra.cli.app import guard, run
from infra.cli.context import chosen
from infra.composition import NotReady
from infra.settings import SettingsError
from infra.stack.errors import PartDown
from projections.errors import StoreUnavailable


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    chosen.stack, chosen.is_debug = None, False


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CommandRefused("no", "no"), exits.FAILED),
        (Fenced("taken over"), exits.FAILED),
        (LogError("down"), exits.DOWN),
        (StoreUnavailable("down"), exits.DOWN),
        (GraphUnavailable("down"), exits.DOWN),
        (PartDown("kafka", "down"), exits.DOWN),
        (NotReady("train first"), exits.NOT_READY),
        (SettingsError("kafka: what"), exits.USAGE),
    ],
)
def test_an_error_is_one_sentence_and_a_status(error: Exception, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise error

    assert guard(work) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.strip() == str(error)


def test_an_error_that_nobody_expected_says_how_to_see_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(lambda: 1 // 0) == exits.FAILED
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown and "--debug" in shown and "Traceback" not in shown


def test_with_debug_it_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    chosen.is_debug = True
    assert guard(lambda: 1 // 0) == exits.FAILED
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_ends_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise KeyboardInterrupt

    assert guard(work) == exits.STOPPED
    assert capsys.readouterr().err == "Stopped.\n"


def test_a_command_that_returns_nothing_is_done() -> None:
    assert guard(lambda: None) == exits.OK


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run", "nonsense"],
        ["run", "warehouse", "--instance", "0"],
        ["run", "notifier", "--instance", "2"],
        ["scale", "nonsense", "2"],
        ["scale", "warehouse", "many"],
        ["topics", "grow", "transaction-events"],
        ["verify", "nonsense"],
        ["verify", "--nonsense"],
        ["ingest", "/nowhere/at/all.csv"],
        ["simulate", "--to", "file"],
        ["score"],
        ["score", "ethereum:0x1", "--wallet", "ethereum:0x2"],
        ["investigate"],
        ["rebuild", "nonsense"],
        ["rebuild", "warehouse", "--swap", "--rollback"],
        ["rebuild", "scores", "--rollback"],
        ["repair", "graph", "--wallet", "ethereum:0x1"],
        ["repair", "warehouse"],
        ["repair", "warehouse", "--wallet", "ethereum:0x1", "--until", "yesterday"],
        ["repair", "warehouse", "--from-offsets", "missing.json"],
        ["warehouse", "ddl", "--dialect", "oracle"],
        ["schemas", "show", "AlertRaised", "--schema-version", "99"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == exits.USAGE
    assert capsys.readouterr().out == ""


def test_help_names_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == exits.OK
    shown = " ".join(capsys.readouterr().out.split())
    for meaning in exits.MEANINGS.values():
        assert meaning in shown
