"""The servers' jars: one folder a pom, complete or absent, never fetched twice. A stand-in plays Maven."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infra.stack import downloads

_MAVEN = """#!{python}
import pathlib, sys
target = next(a.split("=", 1)[1] for a in sys.argv if a.startswith("-Dtidemark.jars="))
modules = sys.argv[sys.argv.index("-pl") + 1].split(",")
assert pathlib.Path(target).is_absolute()
for module in modules:
    (pathlib.Path(target) / module.lstrip(":")).mkdir(parents=True)
    (pathlib.Path(target) / module.lstrip(":") / "a.jar").touch()
print("progress")
sys.exit({code})
"""


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    _install_maven(tmp_path, 0)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "venv"


def _install_maven(folder: Path, code: int) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    maven = folder / "bin" / "mvn"
    maven.write_text(_MAVEN.format(python=sys.executable, code=code))
    maven.chmod(0o755)


def test_every_part_is_fetched_once(prefix: Path) -> None:
    assert downloads.missing(prefix) == list(downloads.MODULES)
    assert downloads.download(prefix) == list(downloads.MODULES)
    assert downloads.missing(prefix) == []
    assert downloads.download(prefix) == []


def test_only_the_missing_part_is_fetched(prefix: Path) -> None:
    downloads.download(prefix)
    folder = downloads.jar_folder("kafka", prefix)
    (folder / "a.jar").unlink()
    folder.rmdir()
    assert downloads.download(prefix) == ["kafka"]


def test_a_failed_run_leaves_no_half_folder(prefix: Path, tmp_path: Path) -> None:
    _install_maven(tmp_path, 1)
    with pytest.raises(subprocess.CalledProcessError):
        downloads.download(prefix)
    assert downloads.missing(prefix) == list(downloads.MODULES)
    assert list((prefix / "share" / "tidemark" / "jars").iterdir()) == []


def test_a_missing_maven_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install maven"):
        downloads.download(tmp_path)


def test_another_pom_is_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = downloads.jar_folder("kafka", tmp_path)
    poms = tmp_path / "poms"
    poms.mkdir()
    for file in downloads.POMS.glob("*.xml"):
        (poms / file.name).write_bytes(file.read_bytes())
    (poms / "kafka.xml").write_text("<changed/>")
    monkeypatch.setattr(downloads, "POMS", poms)
    assert downloads.jar_folder("kafka", tmp_path) != before


def test_set_up_needs_nothing_installed() -> None:
    """It runs before the packages are there: the standard library alone."""
    command = [sys.executable, "-I", "-S", str(Path(downloads.__file__)), "--help"]
    assert subprocess.run(command, capture_output=True).returncode == 0
