"""One day of Tidemark: what came in is ingested and put away, held against expectations, learned from, and scored.

    ingest → archive processed files ┐
    expectations ────────────────────┴→ train → evaluate → gate → promote → start streaming → trigger alerts

Each task is a command of Tidemark and takes what it prints (`--json`) from there. A broken expectation fails the run before anything is
learned; a model that the gate holds back skips its promotion, and the stream goes on with the one that scores. Every task may be
repeated: ingestion records nothing twice, scoring goes on from its position, an alert has one item and one id.

Source: Airflow 3 documentation, "Pythonic Dags with the TaskFlow API", "Deadline Alerts" (which replaced SLAs in Airflow 3).
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk import Param, Variable, dag, task
from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference

log = logging.getLogger("airflow.task")

HELD_BACK, NOT_READY = 6, 5
"""Exit statuses of Tidemark: a gate held a model back; something must be done first."""
_KINDS = (".csv", ".csv.gz", ".parquet", ".jsonl", ".jsonl.gz")
_KEPT = 4_000  # characters of what a command prints


def tidemark(*arguments: str, allowed: tuple[int, ...] = ()) -> tuple[int, dict[str, Any]]:
    """Run a command with `--json`; its own words go to the task's log, line by line.

    Returns the exit status and the document.

    Raises:
        AirflowFailException: the command line or a setting is wrong (2), which no retry cures.
        RuntimeError: any other status that is neither 0 nor allowed; Airflow tries again.
    """
    command = [Variable.get("tidemark_command", default="tidemark"), *arguments, "--json"]
    log.info("$ %s", " ".join(command))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None, text=True)
    log.info("%s", done.stdout[:_KEPT])
    if done.returncode == 2:
        raise AirflowFailException(f"{' '.join(command)}: the command or a setting is wrong; its message stands above")
    if done.returncode and done.returncode not in allowed:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}; its message stands above")
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}


def _deadline() -> DeadlineAlert | None:
    """What was an SLA before Airflow 3: a run that has not ended so many hours after it was queued is told of, and goes on.

    None unless the variable `tidemark_deadline_hours` is set: with one, `airflow dags test` of Airflow 3.1 fails at the end of a run.
    """
    hours = Variable.get("tidemark_deadline_hours", default=None)
    if hours is None:
        return None
    callback = AsyncCallback("tidemark_deadline.missed")
    return DeadlineAlert(reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=timedelta(hours=float(hours)), callback=callback)


@dag(
    dag_id="tidemark_day",
    description="Ingest, put away, check, train, judge, promote or stop at the gate, score, alert.",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    deadline=_deadline(),
    tags=["tidemark", "fraud"],
    default_args={
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(hours=1),
    },
    params={
        "inbox": Param("", type="string", description="Folder of files of transactions; empty for none."),
        "share": Param(
            0.2, type="number", minimum=0.05, maximum=0.5, description="Of the transactions, the last, that models are judged on."
        ),
        "tolerance": Param(0.01, type="number", minimum=0, maximum=1, description="Average precision that a new model may lack."),
        "expectations": Param("fail", enum=["fail", "warn"], description="What a broken expectation does to the run."),
    },
    doc_md=__doc__,
)
def tidemark_day() -> None:
    @task
    def ingest(params: dict[str, Any] | None = None) -> list[list[Any]]:
        """Send each file of the inbox; returns those that were taken whole, each with what it was: size and time of change."""
        folder = (params or {})["inbox"]
        if not folder:
            raise AirflowSkipException("no inbox is given: nothing to ingest")
        taken = []
        for path in sorted(Path(folder).iterdir()):
            if path.is_file() and path.name.endswith(_KINDS):
                was = path.stat()
                _, told = tidemark("ingest", str(path))
                log.info("%s: %s transactions sent", path.name, told["commands"])
                if told["token"]:  # what is learned from and checked below must be there first
                    tidemark("wait", told["token"], "--for", "archive", "--for", "warehouse", "--timeout", "1800")
                taken.append([str(path), was.st_size, was.st_mtime_ns])
        return taken

    @task
    def archive_processed(taken: list[list[Any]], ds: str | None = None) -> list[str]:
        """Move the files that were ingested below `processed/<day>/`: the next run does not read them again.

        One that has changed since stays for the next run, and none takes another's place.
        """
        moved = []
        for name, size, changed in taken:
            path = Path(name)
            if not path.exists():  # a try before this one has moved it
                continue
            if (path.stat().st_size, path.stat().st_mtime_ns) != (size, changed):
                log.warning("%s has changed since it was ingested: it stays", path.name)
                continue
            folder = path.parent / "processed" / str(ds or "by-hand")
            folder.mkdir(parents=True, exist_ok=True)
            target, number = folder / path.name, 1
            while target.exists():
                target, number = folder / f"{number}-{path.name}", number + 1
            shutil.move(path, target)
            moved.append(str(target))
        return moved

    @task(trigger_rule="none_failed")
    def expectations(params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Hold the warehouse's last rows and last whole day against the expectations."""
        status, found = tidemark("quality", allowed=(1,))
        if status and "success" not in found:
            raise RuntimeError("the expectations could not be held against the warehouse; the message stands above")
        broken = [f"{suite['suite']}: {sentence}" for suite in found["suites"] for sentence in suite["failed"]]
        for sentence in broken:
            log.error("%s", sentence)
        if broken and (params or {})["expectations"] == "fail":
            raise AirflowFailException(f"{len(broken)} expectations are broken: nothing is learned from such data; they stand above")
        return {"success": not broken, "docs": found["docs"]}

    @task(trigger_rule="none_failed", execution_timeout=timedelta(hours=4))
    def train(params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Train Spark's regression on the archive and judge it on the last part; nothing is promoted yet."""
        given = params or {}
        options = ("--gate-only", "--share", str(given["share"]), "--tolerance", str(given["tolerance"]))
        return tidemark("spark", "train", *options, allowed=(HELD_BACK,))[1]

    @task
    def evaluate(trained: dict[str, Any]) -> dict[str, Any]:
        """Print both models' figures; returns what the gate decides on."""
        for who in ("challenger", "champion"):
            one = trained[who]
            if one is not None:
                log.info("%s: average precision %s, AUROC %s", one["model_version"], one["average_precision"], one["auroc"])
        return {"model_version": trained["model_version"], "has_passed": trained["has_passed"], "tolerance": trained["tolerance"]}

    @task
    def gate(verdict: dict[str, Any]) -> str:
        """Skip what follows where the new model lacks more than is tolerated."""
        if not verdict["has_passed"]:
            raise AirflowSkipException(f"held back: it lacks more than {verdict['tolerance']} of average precision")
        return str(verdict["model_version"])

    @task
    def promote(model_version: str) -> str:
        """Let the new model score."""
        tidemark("spark", "promote", model_version)
        return model_version

    @task(trigger_rule="none_failed")
    def start_streaming(promoted: str | None) -> str:
        """Have the scoring job running on the promoted model; one that runs on it already goes on."""
        status, found = tidemark("spark", "up", allowed=(NOT_READY,) if promoted is None else ())
        if status == NOT_READY:
            raise AirflowSkipException("the gate let no model pass, and none that this version can use was promoted before: nothing scores")
        return str(found["model_version"])

    @task(retries=5)
    def trigger_alerts(model_version: str) -> dict[str, Any]:
        """Wait until the stream is scored up to the head as it is now, and every alert told of; fails where a store lacks one."""
        found = tidemark("spark", "wait")[1]
        log.info("%s: %s scored, %s alerts, %s told of", model_version, found["scored"], found["alerts"], found["told"])
        return found

    taken = ingest()
    put_away = archive_processed(taken)
    checked = expectations()
    trained = train()
    [put_away, checked] >> trained
    put_away >> checked
    trigger_alerts(start_streaming(promote(gate(evaluate(trained)))))


tidemark_day()
