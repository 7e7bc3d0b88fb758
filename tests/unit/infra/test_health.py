"""A worker's health by its status file: at work, standing by, failed, or never there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.health import trouble
from infra.metrics import WorkerMetrics, read_statuses, write_standby, write_starting


def test_a_worker_that_works_starts_or_stands_by_is_well(tmp_path: Path) -> None:
    WorkerMetrics("archive", tmp_path)
    write_standby("scorer", tmp_path)
    write_starting("command-handler", tmp_path)
    assert trouble(tmp_path / "archive.json") is None
    assert trouble(tmp_path / "scorer.json") is None
    assert trouble(tmp_path / "command-handler.json") is None


def test_a_worker_that_never_came_is_not(tmp_path: Path) -> None:
    assert trouble(tmp_path / "archive.json") == f"{tmp_path / 'archive.json'}: no worker has come up here yet"


def test_a_worker_that_failed_says_why(tmp_path: Path) -> None:
    WorkerMetrics("archive", tmp_path).write("failed", "S3 does not answer")
    assert trouble(tmp_path / "archive.json") == "archive is failed: S3 does not answer"


def test_why_the_one_before_failed_stays_to_be_seen_while_the_next_one_starts(tmp_path: Path) -> None:
    WorkerMetrics("archive", tmp_path).write("failed", "S3 does not answer")
    write_starting("archive", tmp_path)
    assert read_statuses(tmp_path)["archive"]["last_error"] == "S3 does not answer"
    assert trouble(tmp_path / "archive.json") is None


@pytest.mark.parametrize("damage", ['{"state": "running"}', "[]", '"text"', "{", "{}"])
def test_a_damaged_file_is_no_health(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "archive.json"
    file.write_text(damage, "utf-8")
    assert trouble(file) is not None


def test_what_a_predecessor_left_is_no_health(tmp_path: Path) -> None:
    WorkerMetrics("archive", tmp_path)
    file = tmp_path / "archive.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "metrics_port": 1}), "utf-8")
    assert str(trouble(file)).startswith("archive does not answer: ")


def test_the_command_says_it_by_its_exit_status(tmp_path: Path) -> None:
    file = tmp_path / "archive.json"

    def ask() -> tuple[int, str]:
        found = subprocess.run([sys.executable, "-m", "infra.health", str(file)], capture_output=True, text=True)
        return found.returncode, found.stderr

    assert ask() == (1, f"{file}: no worker has come up here yet\n")
    WorkerMetrics("archive", tmp_path)
    assert ask() == (0, "")
    no_file = subprocess.run([sys.executable, "-m", "infra.health"], capture_output=True, text=True)
    assert no_file.returncode == 2 and no_file.stderr.startswith("usage:")
