"""`tidemark up` starts what is local, whatever is named; the log is made on the user's own servers too."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra import log_setup
from infra.cli import exits
from infra.cli.stack_commands import up
from infra.stack import Stack


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The parts that a stack was asked to start, and `log` where topics and contracts were made; nothing runs."""
    found: list[Any] = []

    def start(stack: Stack, parts: Any = None, **_: Any) -> Any:
        found.append(parts)
        return SimpleNamespace()

    monkeypatch.setattr(Stack, "up", start)
    monkeypatch.setattr(log_setup, "prepare_log", lambda composition: found.append("log") or [])
    monkeypatch.setenv("TIDEMARK_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("TIDEMARK_KAFKA__BOOTSTRAP", "theirs:9096")
    monkeypatch.setenv("TIDEMARK_S3__ENDPOINT_URL", "aws")
    return found


def test_servers_of_the_user_s_are_not_started_when_they_are_named(started: list[Any]) -> None:
    assert up(["kafka", "registry", "s3"], workers=False) == exits.OK
    assert started == [["registry"], "log"]


def test_without_the_whole_log_nothing_is_made_there(started: list[Any]) -> None:
    assert up(["kafka"], workers=False) == exits.OK
    assert started == [[]]
