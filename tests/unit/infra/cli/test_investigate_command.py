"""What investigate prints of a path, of a login, and of what nobody asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graph.investigation import INVESTIGATIONS
from infra.cli import exits
from infra.cli.app import run
from infra.cli.investigate_command import _drawn


@pytest.fixture(autouse=True)
def _no_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("TIDEMARK_STACK", raising=False)


def test_a_relationship_of_two_paths_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    flow = {"type": "FLOW", "caption": "2.0 ETH", "transactions": 3}
    path = {"nodes": [{"wallet_id": "ethereum:0x1"}, {"wallet_id": "ethereum:\x1b[31m"}], "relationships": [flow]}
    _drawn([{"near": path, "far": None}, {"near": path, "far": path}])
    shown = capsys.readouterr().out
    assert shown.count("2.0 ETH") == 1
    assert "\x1b" not in shown and "\\x1b[31m" in shown


def test_the_password_is_printed_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["investigate", "--login", "--json"]) == exits.OK
    found = json.loads(capsys.readouterr().out)
    assert "password" not in found and found["user"] == "neo4j" and "secrets.json" in found["password_is_in"]
    assert run(["investigate", "--show-password", "--json"]) == exits.OK
    shown = json.loads(capsys.readouterr().out)
    secrets = json.loads(Path(found["password_is_in"].split(" in ")[1]).read_text())
    assert shown["password"] == secrets["neo4j"]


def test_the_questions_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["investigate", "--list", "--json"]) == exits.OK
    assert {item["name"] for item in json.loads(capsys.readouterr().out)} == set(INVESTIGATIONS)


def test_an_unknown_question_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["investigate", "ethereum:0x1", "--query", "nonsense"]) == exits.FAILED
    assert "expected one of" in capsys.readouterr().err
