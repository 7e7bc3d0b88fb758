"""State of an older version starts under this code; state of a newer one is refused before anything is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.cli import exits
from infra.cli.app import run
from infra.settings import Settings
from infra.stack import Stack, StackBusy, StackError, state_version
from infra.stack.state import Desired, StackState, WorkerSpec
from infra.stack.state_version import FILE, STATE_VERSION, StateTooNew, Step
from infra.worker import EXIT_FAILED, run_worker


def as_version_1_wrote_it(folder: Path) -> StackState:
    """A stack that was used and stopped, made by today's own code path; version 1 began without `version.json`."""
    state = StackState(folder)
    state.create()
    state.ports("kafka")
    state.secret("postgres")
    with state.change_desired() as box:
        box[0] = Desired(("kafka", "postgres"), {"warehouse": WorkerSpec(("python", "-m", "infra.cli", "run", "warehouse"))})
    (folder / "workers").mkdir()
    (folder / "workers" / "warehouse.json").write_text("{}")
    (folder / FILE).unlink(missing_ok=True)
    return state


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its time and bytes."""
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def from_the_future(folder: Path, number: int = STATE_VERSION + 1) -> dict[str, tuple[int, bytes]]:
    state = as_version_1_wrote_it(folder)
    state.write(FILE, {"state_version": number, "written_by": "tidemark 9.9.0"})
    folder.chmod(0o750)
    return content(folder)


def test_a_new_folder_says_its_version(tmp_path: Path) -> None:
    StackState(tmp_path / "demo").create()
    assert json.loads((tmp_path / "demo" / FILE).read_text())["state_version"] == STATE_VERSION


def test_state_of_version_1_goes_on_as_it_is(tmp_path: Path) -> None:
    before = as_version_1_wrote_it(tmp_path / "demo")
    ports, secret, desired = before.ports("kafka"), before.secret("postgres"), before.desired()
    after = StackState(tmp_path / "demo")
    after.create()
    assert (after.ports("kafka"), after.secret("postgres"), after.desired()) == (ports, secret, desired)
    assert state_version.check(after.folder) == STATE_VERSION


def test_an_older_one_is_brought_forward_step_by_step_and_a_killed_step_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "demo"
    as_version_1_wrote_it(folder)
    taken: list[str] = []

    def dies(where: Path) -> None:
        taken.append("dies")
        if taken.count("dies") == 1:
            raise KeyboardInterrupt

    steps = {
        STATE_VERSION: Step("workers are named anew", lambda where: taken.append(where.name)),
        STATE_VERSION + 1: Step("the ledger moves", dies),
    }
    monkeypatch.setattr(state_version, "STEPS", steps)
    monkeypatch.setattr(state_version, "STATE_VERSION", STATE_VERSION + 2)
    with pytest.raises(KeyboardInterrupt):
        StackState(folder).create()
    assert state_version.check(folder) == STATE_VERSION + 1
    StackState(folder).create()
    assert state_version.check(folder) == STATE_VERSION + 2
    assert taken == ["demo", "dies", "dies"]


def test_an_older_one_in_use_is_not_changed_under_its_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = as_version_1_wrote_it(tmp_path / "demo")
    monkeypatch.setattr(state_version, "STATE_VERSION", STATE_VERSION + 1)
    monkeypatch.setattr(state_version, "STEPS", {STATE_VERSION: Step("never", lambda where: pytest.fail("it was changed"))})
    monkeypatch.setattr(StackState, "is_supervised", lambda self: True)
    with pytest.raises(StackBusy, match="stop it with `tidemark down`"):
        state.create()


def test_every_version_before_this_one_has_its_step() -> None:
    assert set(state_version.STEPS) == set(range(1, STATE_VERSION))


def test_a_newer_one_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    before = from_the_future(tmp_path / "demo")
    stack = Stack.of(Settings(state_dir=tmp_path, stack="demo"))
    said = rf"version {STATE_VERSION + 1}, written by tidemark 9\.9\.0, .* nothing was touched\. Go on with the Tidemark that wrote it"
    with pytest.raises(StateTooNew, match=said):
        stack.up()
    with pytest.raises(StateTooNew, match=said):
        stack.start_worker("warehouse", ["true"])
    assert content(tmp_path / "demo") == before
    assert (tmp_path / "demo").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("words", [["up"], ["up", "--workers"], ["status"], ["verify"], ["rebuild", "warehouse"], ["doctor"]], ids=" ".join)
def test_commands_refuse_a_newer_one_with_a_sentence(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = from_the_future(tmp_path / "demo")
    monkeypatch.setenv("TIDEMARK_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("TIDEMARK_STACK", "demo")
    assert run(words) == exits.FAILED
    shown = capsys.readouterr()
    assert shown.out == "" and "nothing was touched" in shown.err
    assert content(tmp_path / "demo") == before


def test_a_worker_refuses_a_newer_one(tmp_path: Path, any_signals: None) -> None:
    before = from_the_future(tmp_path / "demo")
    assert run_worker(Settings(state_dir=tmp_path, stack="demo"), "warehouse") == EXIT_FAILED
    assert content(tmp_path / "demo") == before


@pytest.fixture
def any_signals() -> Any:
    """A worker takes over SIGTERM and SIGINT: give them back."""
    import signal

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("text", ["no json", "[]", '{"state_version": "two"}', '{"state_version": 0}'])
def test_a_damaged_version_is_refused(text: str, tmp_path: Path) -> None:
    as_version_1_wrote_it(tmp_path / "demo")
    (tmp_path / "demo" / FILE).write_text(text)
    with pytest.raises(StackError, match="is damaged"):
        StackState(tmp_path / "demo").create()
