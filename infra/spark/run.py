"""Runs a Spark job as a process: what it must know goes into a private file, what it tells comes back line by line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from domain.errors import TidemarkError
from infra.composition import Composition
from infra.settings import AWS_ITSELF, aws_variables, process_environment
from infra.spark.environment import SparkEnvironment
from infra.stack.state import write_private
from schema_registry.contracts import contracts

_ROOT = Path(__file__).resolve().parents[2]
LOCAL = ("master", "cores", "memory", "class_path")
"""What of a spec is about this machine alone."""
_LOOK_S = 0.2
_OLD_S = 86_400.0
_STOP_S = 60.0  # a micro-batch that is under way ends first

Told = Callable[[dict[str, Any]], None]
"""Told each line of a job."""


class SparkJobFailed(TidemarkError):
    """A job refused, or ended without a result; the message says why, or where its log is."""


@dataclass(frozen=True, slots=True)
class SparkRunner:
    """Where jobs of one stack run. Each leaves its output in `<stack>/logs/spark-<job>.log`."""

    composition: Composition
    installed: SparkEnvironment

    @property
    def folder(self) -> Path:
        """Scratch space of jobs, private to this user."""
        folder = self.composition.settings.stack_dir / "spark"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def sweep(self) -> None:
        """Remove what jobs left whose starter was killed hard, once it is a day old."""
        for path in self.folder.iterdir():
            if path.is_dir() and time.time() - path.stat().st_mtime > _OLD_S:
                shutil.rmtree(path, ignore_errors=True)

    def spec(self, *read: str, fields: tuple[str, ...] | None = None) -> dict[str, Any]:
        """What every job must know: servers with their secrets, the archive's folder, and the schemas' ids, with the schemas that it reads.

        Args:
            read: the contracts that the job reads.
            fields: of `TransactionRecorded` the fields wanted; all without.
        """
        composition = self.composition
        settings, catalog = composition.settings, composition.clients.catalog
        schemas = [
            {"id": schema_id, "contract": name, "schema": json.dumps(catalog.version(schema_id).schema) if name in read else None}
            for name in contracts()
            for schema_id in sorted(catalog.ids_of(name))
        ]
        s3, generation = settings.s3, composition.generations.get("archive", 1)
        return {
            "master": settings.spark.master or f"local[{settings.spark.cores}]", "cores": settings.spark.cores,
            "memory": settings.spark.memory, "class_path": self.installed.class_path,
            "schemas": schemas, "latest": {name: json.dumps(_latest(name, fields)) for name in read},
            "archive": f"s3a://{s3.bucket}/raw/g{generation}",
            "kafka": _java_client(composition.clients.kafka),
            "s3": {
                "endpoint": None if s3.endpoint_url in (None, AWS_ITSELF) else s3.endpoint_url, "region": s3.region,
                "access_key": s3.access_key, "secret_key": s3.secret_key.get_secret_value() if s3.secret_key is not None else None,
            },
        }  # fmt: skip

    def run(self, job: str, spec: dict[str, Any], told: Told = lambda line: None, stop: Event | None = None) -> dict[str, Any]:
        """Run a job to its end, or, once `stop` is set, to the next place where it may end; returns its result.

        Raises:
            SparkJobFailed: it refused, or died.
        """
        self.sweep()
        with self._scratch(job) as scratch:
            given = {**spec, "scratch": str(scratch), "is_tethered": True}
            file = scratch / "spec.json"
            write_private(file, json.dumps(given))
            log = self.composition.settings.stack_dir / "logs" / f"spark-{job}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [str(self.installed.python), "-m", f"infra.spark.jobs.{job}", str(file)],
                    cwd=_ROOT, env=self._variables(scratch), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output,
                    text=True, start_new_session=True,
                )  # fmt: skip
                try:
                    last = self._follow(process, told, stop)
                finally:
                    _end(process)
        if last is not None and last["kind"] == "result":
            return last
        if last is not None and last["kind"] == "refused":
            raise SparkJobFailed(f"spark {job}: {last['message']}")
        raise SparkJobFailed(f"the Spark job {job} ended with status {process.returncode} and no result; its log is {log}")

    def _follow(self, process: subprocess.Popen[str], told: Told, stop: Event | None) -> dict[str, Any] | None:
        Thread(target=_watch, args=(process, stop or Event()), daemon=True).start()
        last = None
        for line in process.stdout or ():
            try:
                last = json.loads(line)
            except ValueError:  # it was killed while it wrote
                return None
            told(last)
        process.wait()
        return last

    def _variables(self, scratch: Path) -> dict[str, str]:
        return process_environment(
            {
                "JAVA_HOME": str(self.installed.java_home), "PYTHONPATH": str(_ROOT), "PYSPARK_PYTHON": str(self.installed.python),
                "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": str(scratch), "TMPDIR": str(scratch),
                **aws_variables(),
            }
        )  # fmt: skip

    @contextmanager
    def _scratch(self, job: str) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix=f"{job}-", dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _watch(process: subprocess.Popen[str], stop: Event) -> None:
    """Ask the job to end once `stop` is set; when it has ended, so does all that it started: what holds its output would be waited for."""
    while process.poll() is None:
        if stop.wait(_LOOK_S):
            process.send_signal(signal.SIGTERM)
            break
    process.wait()
    _end_all(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Leave nothing of the job running, Java included."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    _end_all(process)
    process.wait()


def _end_all(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _latest(name: str, fields: tuple[str, ...] | None) -> dict[str, Any]:
    schema = contracts()[name].latest
    if fields is None or name != "TransactionRecorded":
        return schema
    return {**schema, "fields": [field for field in schema["fields"] if field["name"] in fields]}


def _java_client(options: dict[str, Any]) -> dict[str, str]:
    """librdkafka's options as Kafka's Java client names them."""
    found: dict[str, str] = {
        name: str(options[name]) for name in ("bootstrap.servers", "security.protocol", "sasl.mechanism") if name in options
    }
    if "sasl.username" in options:
        module = "scram.ScramLoginModule" if "SCRAM" in str(options.get("sasl.mechanism")) else "plain.PlainLoginModule"
        user, password = (json.dumps(str(options[name])) for name in ("sasl.username", "sasl.password"))
        found["sasl.jaas.config"] = f"org.apache.kafka.common.security.{module} required username={user} password={password};"
    if "ssl.ca.location" in options:
        found |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(options["ssl.ca.location"])}
    return found
