"""What a Spark job is given, and how it is followed: without Spark."""

from __future__ import annotations

import json
import stat
import sys
import time
from pathlib import Path
from threading import Event, Timer
from types import SimpleNamespace
from typing import Any

import pytest

from infra.environments import EnvironmentMissing, environment
from infra.settings import S3Settings, load_settings
from infra.spark.environment import SparkEnvironment
from infra.spark.jobs.fields import FIELDS
from infra.spark.run import SparkJobFailed, SparkRunner, _java_client
from schema_registry.catalog import SchemaCatalog


class Installed(SparkEnvironment):
    """Runs this Python; the module of a job is a script of the test's."""

    @property
    def python(self) -> Path:
        return self.folder / "python"

    @property
    def class_path(self) -> str:
        return ""


def runner(tmp_path: Path, script: str) -> SparkRunner:
    """A runner whose every job is this script, given the spec's file."""
    code = tmp_path / "job.py"
    code.write_text(script)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{code}" "$3"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    settings = load_settings(state_dir=tmp_path / "state", s3=S3Settings(access_key="key", secret_key="hidden", endpoint_url="http://s3:1"))  # type: ignore[arg-type]
    clients = SimpleNamespace(catalog=SchemaCatalog.numbered(), kafka={"bootstrap.servers": "b:9092", "security.protocol": "PLAINTEXT"})
    composition: Any = SimpleNamespace(settings=settings, clients=clients, generations={"archive": 3})
    return SparkRunner(composition, Installed(tmp_path))


TELL = "import json, sys, os, stat\nfile = sys.argv[1]\nspec = json.load(open(file))\n"


def test_a_job_gets_its_spec_in_a_private_file_and_nothing_of_it_on_the_command_line(tmp_path: Path) -> None:
    script = TELL + (
        "mode = stat.S_IMODE(os.stat(file).st_mode)\n"
        "print(json.dumps({'kind': 'batch', 'total': 1}))\n"
        "print(json.dumps({'kind': 'result', 'mode': mode, 'keys': sorted(spec), 'line': open('/proc/self/cmdline').read(),"
        " 'secret': 'hidden' in json.dumps(dict(os.environ))}))\n"
    )
    made = runner(tmp_path, script)
    told: list[dict[str, Any]] = []
    found = made.run("score", made.spec("TransactionRecorded"), told.append)
    assert found["mode"] == 0o600 and "hidden" not in found["line"] and not found["secret"]
    assert {"kafka", "s3", "schemas", "latest", "archive", "scratch"} <= set(found["keys"])
    assert told[0] == {"kind": "batch", "total": 1}
    assert not any(made.folder.iterdir()), "its scratch goes with it"


def test_a_spec_holds_the_schemas_that_are_read_and_the_ids_of_all(tmp_path: Path) -> None:
    made = runner(tmp_path, "")
    spec = made.spec("TransactionRecorded", fields=FIELDS)
    read = [one for one in spec["schemas"] if one["schema"] is not None]
    assert {one["contract"] for one in read} == {"TransactionRecorded"} and len(spec["schemas"]) > 30
    assert [field["name"] for field in json.loads(spec["latest"]["TransactionRecorded"])["fields"]] == list(FIELDS)
    assert spec["archive"].endswith("/raw/g3") and spec["s3"]["secret_key"] == "hidden"
    assert len(json.dumps(spec)) < 64_000, "what a secret of Secrets Manager holds at most"


def test_a_refusal_is_a_sentence_and_a_death_names_its_log(tmp_path: Path) -> None:
    refusing = runner(tmp_path, "import json\nprint(json.dumps({'kind': 'refused', 'message': 'too few labels'}))\nraise SystemExit(2)")
    with pytest.raises(SparkJobFailed, match="spark train: too few labels"):
        refusing.run("train", {})
    dying = runner(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(SparkJobFailed, match=r"ended with status -9 and no result; its log is .*spark-train.log"):
        dying.run("train", {})


def test_stop_asks_the_job_to_end(tmp_path: Path) -> None:
    script = (
        "import json, signal, sys, time\n"
        "def end(*_): print(json.dumps({'kind': 'result', 'stopped': True}), flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nprint(json.dumps({'kind': 'progress'}), flush=True)\ntime.sleep(60)\n"
    )
    stop = Event()
    found = runner(tmp_path, script).run("score", {}, lambda line: Timer(0.1, stop.set).start(), stop)
    assert found["stopped"]


def test_nothing_of_a_job_outlives_it(tmp_path: Path) -> None:
    script = (
        "import json, subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(json.dumps({'kind': 'result', 'child': child.pid}), flush=True)\n"
    )
    child = runner(tmp_path, script).run("score", {})["child"]
    deadline = time.monotonic() + 120
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_kafka_s_options_are_said_as_java_says_them() -> None:
    given = {
        "bootstrap.servers": "b:9096", "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": 'a"b',
        "sasl.password": "p\\w", "ssl.ca.location": "/ca.pem",
    }  # fmt: skip
    found = _java_client(given)
    assert found["sasl.jaas.config"] == (
        'org.apache.kafka.common.security.scram.ScramLoginModule required username="a\\"b" password="p\\\\w";'
    )
    assert (found["ssl.truststore.type"], found["ssl.truststore.location"]) == ("PEM", "/ca.pem")
    assert "plain.PlainLoginModule" in _java_client({**given, "sasl.mechanism": "PLAIN"})["sasl.jaas.config"]


def test_of_two_versions_of_a_jar_spark_s_own_is_taken(tmp_path: Path) -> None:
    wheel = tmp_path / "lib" / "python3.11" / "site-packages" / "pyspark" / "jars"
    mine = tmp_path / "jars"
    for folder, names in ((wheel, ["netty-all-4.2.1.jar", "kafka-x-1.jar"]), (mine, ["netty-all-4.1.0.jar", "hadoop-aws-3.4.2.jar"])):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
    assert SparkEnvironment(tmp_path).class_path == str(mine / "hadoop-aws-3.4.2.jar")


def test_an_environment_is_made_once_and_a_failed_one_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    lock = tmp_path / "requirements.lock"
    lock.write_text("a==1")
    with pytest.raises(EnvironmentMissing, match="make setup"):
        environment("tool", lock, lambda text: None, takes="much")
    # Makes the folder it is told to make, and writes down each call.
    uv.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n[ "$1" = venv ] && mkdir -p "$5"\nexit $(cat {tmp_path}/status)\n')
    uv.chmod(0o755)
    (tmp_path / "status").write_text("1")
    said: list[str] = []
    with pytest.raises(EnvironmentMissing, match="could not be installed"):
        environment("tool", lock, said.append, takes="much")
    (tmp_path / "status").write_text("0")
    first = environment("tool", lock, said.append, takes="much")
    calls = (tmp_path / "calls").read_text()
    assert environment("tool", lock, said.append, takes="much") == first and (tmp_path / "calls").read_text() == calls
    assert len(said) == 2 and "much" in said[0]
    lock.write_text("a==2")
    assert environment("tool", lock, said.append, takes="much") != first
    assert [path.name for path in first.iterdir()] == ["complete"]
