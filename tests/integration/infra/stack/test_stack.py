"""The whole local stack: each server answers, keeps what it acknowledged through a kill, and stops cleanly.

Its own stack, not the session's: these tests kill servers.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import neo4j
import psutil
import psycopg
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from domain.errors import LogError
from infra.kafka.reading import read_batches
from infra.kafka.source import KafkaSource
from infra.settings import KafkaSettings, Settings
from infra.stack import PartDown, Stack, StackError, aws, down_all
from infra.stack.neo4j import current_generation, make_current
from infra.stack.part import SERVERS
from tests.conftest import bare_settings

pytestmark = pytest.mark.timeout(600)
DEADLINE_S = 180.0


@pytest.fixture(scope="module")
def local() -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="tidemark-stack-"))
    made = Stack.of(bare_settings(folder, "killed"))
    try:
        made.up(is_tethered=True, is_kafka_secure=True)
        yield made
    finally:
        made.down()
        shutil.rmtree(folder)


@pytest.fixture
def settings(local: Stack) -> Settings:
    return local.settings()


def until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.1)


def kill_and_wait(local: Stack, name: str) -> None:
    before = local.kill(name)
    until(lambda: (now := local.status()[name]).is_ready and now.pid != before, f"{name}'s return")


def produce(kafka: KafkaSettings, topic: str, value: bytes) -> None:
    admin = AdminClient(kafka.client_config())
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    producer = Producer({**kafka.client_config(), "acks": "all"})
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def read_one(kafka: KafkaSettings, topic: str) -> bytes | None:
    consumer = Consumer({**kafka.client_config(), "group.id": f"read-{topic}", "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([topic])
        message = consumer.poll(60)
        return None if message is None or message.error() else message.value()
    finally:
        consumer.close()


def s3_client(settings: Settings, **changes: Any) -> Any:
    return boto3.client("s3", **{**settings.s3.client_config(), **changes}, config=Config(signature_version="s3v4"))


def test_kafka_keeps_an_acknowledged_record_through_a_kill(local: Stack, settings: Settings) -> None:
    produce(settings.kafka, "kept", b"value")
    kill_and_wait(local, "kafka")
    assert read_one(settings.kafka, "kept") == b"value"


def test_kafka_makes_no_topic_by_itself(settings: Settings) -> None:
    admin = AdminClient(settings.kafka.client_config())
    admin.list_topics("never-made", timeout=10)
    assert "never-made" not in admin.list_topics(timeout=10).topics


def test_a_tls_and_sasl_cluster_is_reached_by_settings(local: Stack) -> None:
    """As the user's own cluster would be: every value comes from the settings."""
    secure = local.secure_kafka()
    user = bare_settings(local.state.folder.parent).model_copy(update={"kafka": secure})
    assert "kafka" not in Stack.of(user).local_parts()
    produce(user.kafka, "secured", b"value")
    assert read_one(user.kafka, "secured") == b"value"
    (batch,) = read_batches(user.kafka.client_config(), ["secured"], {}, {("secured", 0): 1})
    assert list(batch.values) == [b"value"]


@pytest.mark.parametrize("wrong", [{"sasl_password": "wrong"}, {"ca_location": None}], ids=["password", "authority"])
def test_a_wrong_secret_or_authority_is_refused(wrong: dict[str, Any], local: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    secure = KafkaSettings(**{**local.secure_kafka().model_dump(), **wrong})
    admin = AdminClient({**secure.client_config(), "log_level": 0})
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=5)
    monkeypatch.setattr("infra.kafka.source.OPERATION_TIMEOUT_S", 3.0)
    source = KafkaSource({**secure.client_config(), "log_level": 0}, ["secured"], "g", "i", is_alone=True)
    with pytest.raises(LogError, match="the partitions of secured are not known: Local: "):
        source.open(dict, lambda: None, lambda: None)
    source.close()


def test_the_registry_keeps_schemas_and_compatibility_through_a_kill(local: Stack, settings: Settings) -> None:
    url = settings.registry.url
    schema = {"schema": '{"type":"record","name":"A","fields":[{"name":"x","type":"int"}]}'}
    made = httpx.post(f"{url}/subjects/kept-value/versions", json=schema).raise_for_status().json()
    kill_and_wait(local, "registry")
    assert httpx.get(f"{url}/schemas/ids/{made['id']}").raise_for_status().json()["schema"] == schema["schema"]
    assert httpx.get(f"{url}/config").json()["compatibilityLevel"] == "FULL_TRANSITIVE"


def test_the_object_store_keeps_objects_and_lets_one_creator_win(local: Stack, settings: Settings) -> None:
    client = s3_client(settings)
    client.put_object(Bucket=settings.s3.bucket, Key="kept", Body=b"first", IfNoneMatch="*")
    kill_and_wait(local, "s3")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=settings.s3.bucket, Key="kept", Body=b"second", IfNoneMatch="*")
    assert client.get_object(Bucket=settings.s3.bucket, Key="kept")["Body"].read() == b"first"


def test_the_object_store_refuses_a_wrong_secret(settings: Settings) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        s3_client(settings, aws_secret_access_key="wrong").list_buckets()


def test_postgres_keeps_a_committed_row_through_a_kill(local: Stack, settings: Settings) -> None:
    assert settings.warehouse.dsn is not None
    dsn = settings.warehouse.dsn.get_secret_value()
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    kill_and_wait(local, "postgres")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_postgres_refuses_a_wrong_password(settings: Settings) -> None:
    assert settings.warehouse.dsn is not None
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(settings.warehouse.dsn.get_secret_value(), password="wrong")


def test_neo4j_keeps_a_committed_node_through_a_kill_and_serves_its_browser(local: Stack, settings: Settings) -> None:
    assert settings.neo4j.uri is not None
    assert settings.neo4j.password is not None
    assert settings.neo4j.browser_url is not None
    auth = (settings.neo4j.user, settings.neo4j.password.get_secret_value())
    with neo4j.GraphDatabase.driver(settings.neo4j.uri, auth=auth) as driver:
        driver.execute_query("CREATE (:Kept {answer: 42})", database_=settings.neo4j.database)
        kill_and_wait(local, "neo4j")
        found = driver.execute_query("MATCH (n:Kept) RETURN n.answer AS answer", database_=settings.neo4j.database)
        assert [record["answer"] for record in found.records] == [42]
    assert "Neo4j Browser" in httpx.get(settings.neo4j.browser_url, follow_redirects=True).text


def test_a_generation_is_swapped_by_a_link_and_a_restart(local: Stack, settings: Settings) -> None:
    assert settings.neo4j.uri is not None
    assert settings.neo4j.password is not None
    auth = (settings.neo4j.user, settings.neo4j.password.get_secret_value())
    live = current_generation(local.state)

    def mark() -> list[int]:
        with neo4j.GraphDatabase.driver(settings.neo4j.uri or "", auth=auth) as driver:
            found = driver.execute_query("MATCH (n:Generation) RETURN n.number AS n", database_=settings.neo4j.database)
            return [record["n"] for record in found.records]

    with neo4j.GraphDatabase.driver(settings.neo4j.uri, auth=auth) as driver:
        driver.execute_query("CREATE (:Generation {number: $n})", n=live, database_=settings.neo4j.database)
    for generation, expected in ((live + 1, []), (live, [live])):
        local.stop_parts(["neo4j"])
        make_current(local.state, generation)
        local.up(["neo4j"], is_tethered=True)
        assert mark() == expected


def test_guides_are_served_to_the_browser_of_another_origin(local: Stack) -> None:
    (local.state.folder / "guides" / "guide.html").write_text("<h1>guide</h1>")
    url = f"{local.addresses().guides}/guide.html"
    asked = httpx.options(url, headers={"Access-Control-Request-Headers": "x-ajs"})
    assert asked.headers["access-control-allow-origin"] == "*"
    assert asked.headers["access-control-allow-headers"] == "x-ajs"
    assert httpx.get(url).text == "<h1>guide</h1>"
    assert httpx.get(local.addresses().guides).status_code == 404


def test_the_aws_double_gets_its_topics_queues_and_endpoint_back(local: Stack, settings: Settings) -> None:
    topic = aws.create(local.state, "sns", "create_topic", {"Name": "alerts"})["TopicArn"]
    aws.create(local.state, "sqs", "create_queue", {"QueueName": "alerts"})
    queue = topic.replace(":sns:", ":sqs:")
    aws.create(local.state, "sns", "subscribe", {"TopicArn": topic, "Protocol": "sqs", "Endpoint": queue})
    model = {"ModelName": "m", "ExecutionRoleArn": "arn:aws:iam::123456789012:role/r"}
    aws.create(local.state, "sagemaker", "create_model", {**model, "PrimaryContainer": {"Image": "local"}})
    variant = {"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    configuration = {"EndpointConfigName": "c", "ProductionVariants": [variant]}
    aws.create(local.state, "sagemaker", "create_endpoint_config", configuration)
    endpoint = {"EndpointName": "e", "EndpointConfigName": "c"}
    aws.create(local.state, "sagemaker", "create_endpoint", endpoint)
    kill_and_wait(local, "aws")
    options = settings.aws.client_config()
    boto3.client("sns", **options).publish(TopicArn=topic, Message="hello")
    sqs = boto3.client("sqs", **options)
    address = sqs.get_queue_url(QueueName="alerts")["QueueUrl"]
    assert "hello" in sqs.receive_message(QueueUrl=address, WaitTimeSeconds=5)["Messages"][0]["Body"]
    assert boto3.client("sagemaker", **options).describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"


def test_every_listener_is_on_loopback(local: Stack) -> None:
    pids = {status.pid for status in local.status().values()}
    listening = [
        connection.laddr.ip
        for pid in pids
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= len(SERVERS)
    assert {ip.removeprefix("::ffff:") for ip in listening} <= {"127.0.0.1", "::1"}


def test_no_secret_is_on_a_command_line_or_in_a_log(local: Stack) -> None:
    names = ("kafka", "s3_secret_key", "postgres", "neo4j")
    secrets = [local.state.secret(name) for name in names]
    commands = " ".join(" ".join(psutil.Process(status.pid).cmdline()) for status in local.status().values())
    logs = "".join(file.read_text(errors="replace") for file in local.state.folder.rglob("*.log"))
    for name, secret in zip(names, secrets, strict=True):
        assert secret not in commands, name
        assert secret not in logs, name


def test_the_state_folder_and_its_secrets_are_the_owners_alone(local: Stack) -> None:
    assert stat.S_IMODE(local.state.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((local.state.folder / "secrets.json").stat().st_mode) == 0o600


def test_memory_is_told_for_each_part(local: Stack) -> None:
    memory = local.memory()
    assert set(memory) == {*SERVERS, "supervisor"}
    assert sum(memory.values()) < 3 * 2**30


def test_a_second_start_is_refused_by_the_lock(local: Stack) -> None:
    command = [sys.executable, "-m", "infra.stack.supervisor", str(local.state.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3
    assert "already runs" in done.stderr


def test_a_second_up_changes_nothing(local: Stack) -> None:
    before = {name: status.pid for name, status in local.status().items()}
    local.up(is_tethered=True)
    assert {name: status.pid for name, status in local.status().items()} == before


def test_the_next_up_adopts_what_a_killed_supervisor_left(local: Stack) -> None:
    before = {name: status.pid for name, status in local.status().items()}
    os.kill(local.state.supervisor_pid() or 0, signal.SIGKILL)
    until(lambda: not local.is_up(), "the supervisor's end")
    with pytest.raises(PartDown, match="tidemark up"):
        local.require("kafka")
    local.up(is_tethered=True)
    assert {name: status.pid for name, status in local.status().items()} == before


def test_a_worker_runs_beside_the_servers_and_is_started_again(local: Stack, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = f"import os, time; open({str(out)!r}, 'w').write(os.environ['TIDEMARK_STACK']); time.sleep(600)"
    local.start_worker("worker", [sys.executable, "-c", code], depends_on=("kafka",))
    local.wait_ready(["worker"])
    until(lambda: out.exists() and out.read_text() == local.state.folder.name, "the worker's output")
    kill_and_wait(local, "worker")
    assert local.status()["worker"].restarts == 1
    local.stop_worker("worker")
    assert "worker" not in local.status()


def test_a_part_that_is_down_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PartDown, match="neo4j is not running: start it with `tidemark up`") as caught:
        Stack.of(bare_settings(tmp_path)).require("neo4j")
    assert caught.value.part == "neo4j"


def test_down_stops_every_stack_and_what_a_killed_supervisor_left(tmp_path: Path) -> None:
    first, second = (Stack.of(bare_settings(tmp_path, name)) for name in ("one", "two"))
    first.up(["s3"], is_tethered=True)
    second.up(["guides"], is_tethered=True)
    second.start_worker("worker", [sys.executable, "-c", "import time; time.sleep(600)"])
    second.wait_ready(["worker"])
    pids = [status.pid for stack in (first, second) for status in stack.status().values()]
    os.kill(second.state.supervisor_pid() or 0, signal.SIGKILL)
    until(lambda: not second.is_up(), "the supervisor's end")
    assert down_all(tmp_path) == ["one", "two"]
    assert not [pid for pid in pids if pid is not None and psutil.pid_exists(pid) and not _is_zombie(pid)]
    assert down_all(tmp_path) == []


def test_a_taken_port_is_changed_with_a_sentence(tmp_path: Path) -> None:
    stack = Stack.of(bare_settings(tmp_path, "moved"))
    stack.state.create()
    taken = stack.state.port("guides", "http")
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        other.listen()
        try:
            stack.up(["guides"], is_tethered=True)
            assert stack.state.port("guides", "http") != taken
            assert f"guides's port {taken} (http) is taken" in stack.state.log("supervisor").read_text()
        finally:
            stack.down()


def test_a_stack_ends_with_the_process_that_owns_it(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from infra.settings import load_settings\nfrom infra.stack import Stack\n"
        f"Stack(pathlib.Path({str(tmp_path / 'owned')!r}), load_settings()).up(['guides'], is_tethered=True)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    stack = Stack.of(bare_settings(tmp_path, "owned"))
    until(lambda: not stack.is_up(), "the stack's end")


def test_a_worker_must_not_take_a_servers_name(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="server's name"):
        Stack.of(bare_settings(tmp_path)).start_worker("kafka", ["x"])


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
