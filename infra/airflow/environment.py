"""Airflow in an environment of its own: installed at its first use, and a run of the DAG as `airflow dags test` makes it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.environments import environment
from infra.settings import Settings, worker_environment

_HERE = Path(__file__).parent
DAG = "tidemark_day"
DAGS = _HERE / "dags"
_TAKES = "0.2 GiB on disk"


def airflow_environment(say: Callable[[str], None]) -> Path:
    """The folder of the environment, installed first where it is missing.

    Raises:
        EnvironmentMissing: it cannot be installed; the message says why.
    """
    return environment("airflow", _HERE / "requirements.lock", say, takes=_TAKES)


def variables(installed: Path, settings: Settings) -> dict[str, str]:
    """What Airflow must know: its own folder in the stack's, our DAGs alone, and the command that its tasks run, for this very stack."""
    home = settings.stack_dir / "airflow"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return worker_environment(
        {
            "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS), "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO", "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW_VAR_TIDEMARK_COMMAND": str(Path(sys.prefix) / "bin" / "tidemark"),
            "TIDEMARK_STATE_DIR": str(settings.state_dir.absolute()), "TIDEMARK_STACK": settings.stack,
        }
    )  # fmt: skip


def dags_test(installed: Path, settings: Settings, conf: Mapping[str, Any], log: Path) -> int:
    """Run the DAG once, every task in this process's own children, without a scheduler; returns its exit status.

    Args:
        conf: values for the DAG's params.
        log: where the tasks' logs go.
    """
    given = variables(installed, settings)
    airflow = str(installed / "bin" / "airflow")
    day = datetime.now(UTC).date().isoformat()
    with log.open("ab") as output:
        for arguments in (["db", "migrate"], ["dags", "test", DAG, day, "--conf", json.dumps(dict(conf))]):
            done = subprocess.run([airflow, *arguments], env=given, stdout=output, stderr=subprocess.STDOUT)
            if done.returncode:
                return done.returncode
    return 0
