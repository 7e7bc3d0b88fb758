"""The DAG run by Airflow's own `dags test`, its tasks being real commands against real servers."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from domain.commands import LabelWallet
from infra.airflow.environment import DAG, airflow_environment, dags_test, variables
from infra.log_setup import start_workers
from infra.simulator.delivery import write_stream
from infra.simulator.generator import SimulatorOptions, simulate
from infra.spark.models import promoted
from infra.spark.scores import held
from schema_registry.contracts import COMMANDS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

pytestmark = pytest.mark.timeout(1_800)  # some twenty processes, two of them Spark, where two cores are shared
COUNT, SEED = 2_000, 5
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def installed() -> Path:
    return airflow_environment(lambda text: None)


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres", "aws"]) as found:
        yield found


def states(home: Path) -> dict[str, str]:
    """How each task ended, by Airflow's own database."""
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        return dict(database.execute("SELECT task_id, state FROM task_instance").fetchall())


def test_the_dag_parses_and_its_tasks_wait_for_each_other(installed: Path, log: OwnLog, tmp_path: Path) -> None:
    code = (
        "import json; from airflow.models.dagbag import DagBag; b = DagBag(); assert not b.import_errors, b.import_errors;"
        f"d = b.dags[{DAG!r}]; assert d.deadline; print(json.dumps({{t.task_id: sorted(t.upstream_task_ids) for t in d.tasks}}))"
    )
    environment = variables(installed, log.composition.settings) | {"AIRFLOW_VAR_TIDEMARK_DEADLINE_HOURS": "6"}
    subprocess.run([installed / "bin" / "airflow", "db", "migrate"], env=environment, check=True, capture_output=True)
    done = subprocess.run([installed / "bin" / "python", "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "ingest": [], "archive_processed": ["ingest"], "expectations": ["archive_processed"],
        "train": ["archive_processed", "expectations"], "evaluate": ["train"], "gate": ["evaluate"], "promote": ["gate"],
        "start_streaming": ["promote"], "trigger_alerts": ["start_streaming"],
    }  # fmt: skip


def test_a_day_from_the_inbox_to_the_alerts(installed: Path, log: OwnLog, tmp_path: Path) -> None:
    composition = log.composition
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    simulation = simulate(SimulatorOptions(count=COUNT, seed=SEED))
    write_stream(simulation, inbox / "day one.csv")
    (inbox / "notes.txt").write_text("no data")
    workers = ("command-handler", "archive", "warehouse")
    start_workers(log.stack, composition, workers)
    codec = RecordCodec(composition.clients.catalog)
    labels = [LabelWallet(wallet, label, "simulator", AT) for wallet, label in simulation.labels.items()]
    composition.producer.send(COMMANDS, [x.wallet_id.encode() for x in labels], [codec.encode_event(x) for x in labels])
    composition.producer.flush()
    told = tmp_path / "airflow.log"
    conf = {"inbox": str(inbox), "share": 0.3, "tolerance": 1.0, "expectations": "warn"}
    status = dags_test(installed, composition.settings, conf, told)
    assert status == 0, told.read_text()[-6_000:]
    assert [path.name for path in inbox.iterdir() if path.is_file()] == ["notes.txt"]
    assert [path.name for path in (inbox / "processed").rglob("*.csv")] == ["day one.csv"]
    card = promoted(composition)
    assert card is not None and card["trained_to_seq"] == COUNT
    stands = held(composition)
    assert stands.is_whole and stands.scored == COUNT and stands.behind == 0
    tasks = ("ingest", "archive_processed", "expectations", "train", "evaluate", "gate", "promote", "start_streaming", "trigger_alerts")
    assert states(composition.settings.stack_dir / "airflow") == dict.fromkeys(tasks, "success")
