"""Set-up and stop scripts on a machine that lacks something: what they say, and that nothing comes by surprise."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_TOOLS = ("bash", "cat", "sha256sum", "cut", "mktemp", "rm", "tail", "dirname", "flock", "true", "env")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone's scripts, lock and poms, and a PATH of a few tools without Maven."""
    for name in ("infra/setup.sh", "infra/stack/stop.sh", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "infra" / "stack" / "jars", tmp_path / "infra" / "stack" / "jars")
    (tmp_path / "bin").mkdir()
    for tool in _TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    return tmp_path


def run(clone: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(clone / "bin" / "bash"), script, *arguments]
    return subprocess.run(command, cwd=clone, env={"PATH": str(clone / "bin")}, capture_output=True, text=True)


def stand_in(clone: Path, name: str, text: str) -> None:
    (clone / "bin" / name).unlink(missing_ok=True)
    (clone / "bin" / name).write_text(f"#!{clone / 'bin' / 'bash'}\n{text}\n")
    (clone / "bin" / name).chmod(0o755)


def test_a_missing_maven_that_cannot_be_installed_stops_before_anything_else(clone: Path) -> None:
    done = run(clone, "infra/setup.sh")
    assert done.returncode == 1
    assert "apt-get install -y --no-install-recommends maven" in done.stderr
    assert not (clone / ".venv").exists()


def test_all_that_the_system_lacks_is_named_in_one_command(clone: Path) -> None:
    stand_in(clone, "python3", '[[ "$2" != *libgomp* ]]')
    done = run(clone, "infra/setup.sh")
    assert done.returncode == 1
    assert "apt-get install -y --no-install-recommends maven libgomp1" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs a system package")
def test_root_installs_maven_after_saying_so(clone: Path) -> None:
    stand_in(clone, "apt-get", f'echo "$*" >> {clone / "calls"}; [[ $1 == update ]]')
    done = run(clone, "infra/setup.sh")
    assert (clone / "calls").read_text().splitlines() == ["update", "install -y --no-install-recommends maven"]
    assert "installing: apt-get install" in done.stdout
    assert done.returncode == 1
    assert "maven could not be installed" in done.stderr
    assert not (clone / ".venv").exists()


def test_an_old_python_is_named(clone: Path) -> None:
    stand_in(clone, "python3", "exit 1")
    done = run(clone, "infra/setup.sh")
    assert done.returncode == 1
    assert "python3 (3.11 or newer)" in done.stderr


def test_a_python_without_venv_is_named(clone: Path) -> None:
    stand_in(clone, "python3", '[[ "$2" != *ensurepip* ]]')
    done = run(clone, "infra/setup.sh")
    assert done.returncode == 1
    assert "python3-venv" in done.stderr


@pytest.mark.parametrize("action", ["down", "clean"])
def test_stopping_where_nothing_ever_ran_says_so(action: str, clone: Path) -> None:
    done = run(clone, "infra/stack/stop.sh", action)
    assert (done.returncode, done.stdout) == (0, "Nothing to do: there is no state in .tidemark.\n")


def test_clean_without_an_installation_removes_dead_state_alone(clone: Path) -> None:
    for name in ("one", "two"):
        (clone / ".tidemark" / name).mkdir(parents=True)
        (clone / ".tidemark" / name / "supervisor.lock").touch()
    with (clone / ".tidemark" / "two" / "supervisor.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = run(clone, "infra/stack/stop.sh", "clean")
    assert refused.returncode == 1
    assert "still runs in .tidemark/two" in refused.stderr
    assert "make setup" in refused.stderr
    assert run(clone, "infra/stack/stop.sh", "clean").returncode == 0
    assert not (clone / ".tidemark").exists()
