"""The images' recipe, as far as it can be read: no Docker builds it here."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from infra.aws.policies import TEMPLATES, template

ROOT = TEMPLATES.parents[1]
DOCKERFILE = TEMPLATES / "Dockerfile"


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Each instruction with its arguments, lines joined, comments left out."""
    text = "\n".join(line for line in DOCKERFILE.read_text("utf-8").splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", text)
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line.strip()]


def sources(instructions: list[tuple[str, str]]) -> list[str]:
    """What is copied from the project."""
    return [name for kind, said in instructions if kind == "COPY" and not said.startswith("--from") for name in said.split()[:-1]]


def test_what_is_copied_exists_and_is_let_in(instructions: list[tuple[str, str]]) -> None:
    let_in = [line[1:] for line in (TEMPLATES / "Dockerfile.dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    assert sorted(sources(instructions)) == sorted(let_in)
    assert all((ROOT / name).exists() for name in let_in)


def test_every_package_of_ours_is_in_the_image(instructions: list[tuple[str, str]]) -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]["find"]["include"]
    copied = sources(instructions)
    assert all(fnmatch.filter(copied, pattern) for pattern in packages)


def test_packages_are_the_lock_s_by_their_hashes(instructions: list[tuple[str, str]]) -> None:
    (install,) = [said for kind, said in instructions if kind == "RUN" and "pip install" in said]
    for option in ("--require-hashes", "--no-deps", "--only-binary=:all:", "-r requirements.lock"):
        assert option in install


def test_nothing_runs_as_root_or_asks_for_a_secret(instructions: list[tuple[str, str]]) -> None:
    (user,) = [said for kind, said in instructions if kind == "USER"]
    assert user == "10001"
    for name, logical in (("worker", "Task"), ("operator", "Task")):
        (container,) = template(name)["Resources"][logical]["Properties"]["ContainerDefinitions"]
        assert container["User"] == user
    settings = " ".join(said for kind, said in instructions if kind in ("ENV", "ARG"))
    assert not re.search(r"password|secret|_key", settings, re.IGNORECASE)
    assert "ADD" not in {kind for kind, _ in instructions}


def test_a_base_has_a_tag(instructions: list[tuple[str, str]]) -> None:
    (base,) = [said for kind, said in instructions if kind == "ARG"]
    name, _, tag = base.partition("=")[2].partition(":")
    assert name == "python" and re.fullmatch(r"3\.\d+-slim-[a-z]+", tag)
    stages = [said.split() for kind, said in instructions if kind == "FROM"]
    known = {"${PYTHON}"}
    for image, _, stage in stages:
        assert image in known
        known.add(stage)


def test_the_worker_s_commands_are_our_command_line_s(instructions: list[tuple[str, str]]) -> None:
    entry = [json.loads(said) for kind, said in instructions if kind == "ENTRYPOINT"][-1]
    assert entry == ["python", "-m", "infra.cli"]
    (container,) = template("worker")["Resources"]["Task"]["Properties"]["ContainerDefinitions"]
    command = [{"Worker": "archive", "Instance": "0"}[one["Ref"]] if isinstance(one, dict) else one for one in container["Command"]]
    # Instance 0 is refused once the worker's name was looked at.
    found = subprocess.run([sys.executable, *entry[1:], *command], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 2 and "--instance" in found.stderr, found.stderr


def test_the_endpoint_s_entry_takes_sagemaker_s_word(instructions: list[tuple[str, str]], tmp_path: Path) -> None:
    shell, option, command = next(json.loads(said) for kind, said in instructions if kind == "ENTRYPOINT")
    assert (shell, option) == ("sh", "-c")
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    found = subprocess.run(["/bin/sh", option, command, "serve"], capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert found.stdout.split() == ["-m", "ml.inference", "--model", "/opt/ml/model", "--host", "0.0.0.0", "--port", "8080"]
