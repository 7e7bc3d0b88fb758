"""Postgres never runs as root, and yet reaches a clone that is root's alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.stack.postgres import _as_unprivileged

ASK = "import os, sys; print(os.geteuid(), os.access(sys.argv[1], os.X_OK))"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops its rights")
def test_without_root_it_still_finds_its_programs_below_a_folder_of_roots_alone(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    program = folder / "program"
    program.touch(mode=0o755)
    done = subprocess.run([*_as_unprivileged(), sys.executable, "-c", ASK, str(program)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(65534), "True"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root drops its rights")
def test_whoever_is_not_root_runs_it_as_it_is() -> None:
    assert _as_unprivileged() == []
