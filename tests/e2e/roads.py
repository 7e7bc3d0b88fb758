"""A road walked as its user walks it: one command on servers that are up."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from infra.settings import worker_environment
from tests.integration.infra.own_log import OwnLog


def walk_road(log: OwnLog, *arguments: str) -> dict[str, Any]:
    """What `tidemark road ARGUMENTS --json` reports of a walk on the servers of `log`."""
    state = log.stack.state.folder
    here = {"TIDEMARK_STATE_DIR": str(state.parent), "TIDEMARK_STACK": state.name}
    command = [sys.executable, "-m", "infra.cli", "road", *arguments, "--json"]
    found = subprocess.run(command, env=worker_environment(here), capture_output=True, text=True, timeout=800)
    assert found.returncode == 0, found.stderr
    report: dict[str, Any] = json.loads(found.stdout)
    return report


__all__ = ["walk_road"]
