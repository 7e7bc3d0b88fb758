"""Which stack a command speaks to, and what it says when that one is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cli.context import Context, chosen
from infra.settings import DEFAULT_STACK, Settings
from infra.stack import PartDown, Stack
from tests.conftest import bare_settings


def test_a_server_that_is_needed_and_not_there_is_named(tmp_path: Path) -> None:
    settings = bare_settings(tmp_path)
    with pytest.raises(PartDown, match=f"not running: start it with `tidemark --stack {settings.stack} up`"):
        Context(settings).need("kafka")
    with pytest.raises(PartDown, match="not running: start it with `tidemark up`"):
        Context(settings.model_copy(update={"stack": DEFAULT_STACK})).need("kafka")


def test_a_server_of_the_users_own_is_not_asked_for(tmp_path: Path) -> None:
    settings = bare_settings(tmp_path)
    own = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"bootstrap": "kafka.example:9092"})})
    assert Context(own).need("kafka").settings.kafka.bootstrap == "kafka.example:9092"


def test_the_stack_that_was_named_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(chosen, "stack", "mine")
    assert Context().given.stack == "mine"


@pytest.mark.parametrize(
    ("running", "expected"), [(["demo-small"], "demo-small"), (["demo", "other"], "demo"), ([], "demo"), (["a", "b"], "demo")]
)
def test_without_a_name_it_is_the_default_or_the_only_one_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: list[str], expected: str
) -> None:
    def is_up(self: Stack) -> bool:
        return self.state.folder.name in running

    monkeypatch.setenv("TIDEMARK_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("TIDEMARK_STACK", raising=False)
    monkeypatch.setattr(Stack, "is_up", is_up)
    for name in running:
        (tmp_path / name).mkdir()
        (tmp_path / name / "desired.json").write_text("{}")
    found: Settings = Context().given
    assert found.stack == expected
