"""Each role allows the calls that its part really makes, recorded here as the part makes them, and none beside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pyarrow as pa
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from pyiceberg.catalog.sql import SqlCatalog
from werkzeug.serving import make_server

from infra import doctor
from infra.aws.policies import filled_in, policies
from infra.batch_results import PREFIX
from infra.composition import Composition, NotReady
from infra.deployment import serving_address
from infra.endpoint import SageMakerEndpoint
from infra.notifier import Notifier
from infra.payloads import S3Payloads
from infra.settings import AwsSettings, S3Settings, Settings, WarehouseSettings, load_settings
from ml.head import ROW_WIDTH
from projections.archive_reading import ArchiveReader
from projections.curated.catalog import NAMESPACE
from projections.curated.table import columns, open_table
from projections.curated.upkeep import delete_below
from projections.protocol import EventBatch
from projections.records import RecordBatch
from projections.warehouse.redshift_staging import StagedFiles
from schema_registry.contracts import CASE_EVENTS, TRANSACTION_EVENTS
from tests.unit.infra.aws.double import ACCOUNT, PACKAGE, REGION, Call, client, deployed_values, is_allowed, object_calls, recorded

AT = f"{REGION}:{ACCOUNT}"
Statements = list[dict[str, Any]]
Role = Callable[..., Statements]


@pytest.fixture
def role(stacks: dict[str, dict[str, str]]) -> Role:
    """The statements of a role by its template and logical name; more values may be given for what the double has no name for."""

    def found(name: str, logical: str, **values: str) -> Statements:
        document = policies(name)[logical]
        return filled_in(document["Statement"], {**deployed_values(name, stacks[name]), **values})

    return found


@pytest.fixture
def bucket(stacks: dict[str, dict[str, str]]) -> str:
    """The bucket of the stores."""
    return stacks["stores"]["Bucket"]


@pytest.fixture
def settings(bucket: str) -> Settings:
    """As a task has them: S3 and AWS are themselves."""
    return load_settings(s3=S3Settings(endpoint_url="aws", bucket=bucket), aws=AwsSettings(endpoint_url="aws"))


def allowed(statements: Statements, calls: Iterable[Call]) -> None:
    """Demand that all of them are allowed."""
    assert [call for call in calls if not is_allowed(statements, call)] == []


def refused(statements: Statements, *calls: Call) -> None:
    """Demand that none of them is allowed."""
    assert [call for call in calls if is_allowed(statements, call)] == []


def of(bucket: str, action: str, key: str = "") -> Call:
    """A call to an object of a bucket, or to the bucket."""
    return Call(f"s3:{action}", f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else ""))


def batch(first: int, count: int) -> RecordBatch:
    """Records of one partition."""
    offsets = np.arange(first, first + count)
    nothing = [None] * count
    return RecordBatch(TRANSACTION_EVENTS, np.zeros(count, np.int32), offsets, offsets, nothing, [b"value"] * count, nothing)


def write_archive(archive: ArchiveReader) -> None:
    """All that the archive's worker does to S3, a key that is taken among it."""
    archive.prepare({1: '"string"'})
    archive.mark_beginning(archive.begins_at({(TRANSACTION_EVENTS, 0): 0}))
    archive.load_position()
    archive.apply_records([batch(0, 3)], {}, {(TRANSACTION_EVENTS, 0): 3})
    late = ArchiveReader(archive._s3, archive._bucket, 1)
    late._knows_ends = True  # a second writer that looked before the first one wrote
    late.apply_records([batch(0, 5)], {}, {(TRANSACTION_EVENTS, 0): 5})


def read_history(archive: ArchiveReader) -> None:
    """What every worker may do before it reads Kafka: find what Kafka holds no longer, and read it."""
    archive.beginning()
    objects = archive.objects()
    assert sum(len(found) for found in archive.read_between(objects, {}, dict.fromkeys(objects, 10))) == 5


def test_the_archive_is_written_and_read_by_its_worker_alone(role: Role, bucket: str) -> None:
    calls: list[Call] = []
    archive = ArchiveReader(client("s3", calls), bucket, 1)
    write_archive(archive)
    read_history(archive)
    own = role("workers", "ArchiveRole")
    assert {call.action for call in calls} == {"s3:ListBucket", "s3:PutObject", "s3:GetObject"}
    allowed(own, calls)
    refused(
        own, of(bucket, "DeleteObject", "raw/g1/transaction-events/partition=0000/a.parquet"), of("another", "PutObject", "raw/a"),
        of(bucket, "PutObject", "models/a"), of(bucket, "PutObject", "curated/a"), of(bucket, "GetObject", "models/a"),
        Call("s3:ListAllMyBuckets", "*"), of(bucket, "CreateBucket"), of(bucket, "PutBucketPolicy"),
    )  # fmt: skip


@pytest.mark.parametrize("worker", ["CommandHandler", "Curated", "Warehouse", "Graph", "Scorer", "Alerts", "Rules", "Notifier"])
def test_every_other_worker_reads_history_and_keeps_refused_records(worker: str, role: Role, bucket: str) -> None:
    write_archive(ArchiveReader(client("s3"), bucket, 1))
    calls: list[Call] = []
    read_history(ArchiveReader(client("s3", calls), bucket, 1))
    S3Payloads(client("s3", calls), bucket).put(f"{worker}/transaction-events/0/17/digest", b"x" * 10)
    own = role("workers", f"{worker}Role")
    allowed(own, calls)
    refused(own, of(bucket, "PutObject", "raw/g1/a"), of(bucket, "DeleteObject", "raw/g1/a"), of(bucket, "GetObject", "quarantine/a"))
    refused(own, *(of("another", action, "raw/a") for action in ("GetObject", "PutObject")))


def test_the_warehouse_stages_what_redshift_s_role_copies(role: Role, bucket: str) -> None:
    calls: list[Call] = []
    files = StagedFiles(client("s3", calls), bucket, WarehouseSettings().staging_prefix)
    manifests = files.write(
        "warehouse_g1/transaction-events-0@0-3-0123", {"fact_transaction": [pa.table({"a": [1, 2]}), pa.table({"a": [3]})]}
    )
    staged = [call.resource for call in calls]
    assert files.remove("warehouse_g1") == 3
    own = role("workers", "WarehouseRole")
    assert {call.action for call in calls} == {"s3:PutObject", "s3:ListBucket", "s3:DeleteObject"}
    allowed(own, calls)
    refused(
        own, of(bucket, "PutObject", "curated/a"), of(bucket, "DeleteObject", "raw/g1/a"), of("another", "PutObject", "warehouse-staging/a")
    )
    copy = role("stores", "CopyRole")
    assert f"arn:aws:s3:::{manifests['fact_transaction'].removeprefix('s3://')}" in staged
    allowed(copy, [Call("s3:GetObject", resource) for resource in staged])
    allowed(copy, [Call("s3:ListBucket", f"arn:aws:s3:::{bucket}", {"s3:prefix": f"{WarehouseSettings().staging_prefix}/warehouse_g1/"})])
    scored = f"{PREFIX}/run_id=0123/part-0.parquet"
    allowed(copy, [of(bucket, "GetObject", scored)])
    allowed(role("operator", "OperatorRole"), [of(bucket, "PutObject", scored), of(bucket, "GetObject", scored)])
    refused(
        copy, of(bucket, "PutObject", scored),
        of(bucket, "GetObject", "raw/g1/a"), of(bucket, "GetObject", "models/a"), of(bucket, "PutObject", "warehouse-staging/a"),
        Call("s3:ListBucket", f"arn:aws:s3:::{bucket}", {"s3:prefix": "raw/"}), of(bucket, "ListBucket"),
    )  # fmt: skip


def test_the_notifier_publishes_to_its_topic(role: Role, stacks: dict[str, dict[str, str]], bucket: str) -> None:
    calls: list[Call] = []
    notifier = Notifier(client("sns", calls), client("sqs", calls))
    assert notifier.prepare() == stacks["watch"]["AlertQueue"]  # what watch.yaml has made
    fields = {name: [None] for name in notifier.reads["AlertRaised"]} | {"case_id": ["c"], "known_at": [datetime(2026, 11, 28, tzinfo=UTC)]}
    (effect,) = notifier.effects(EventBatch({"AlertRaised": pa.table(fields)}))
    effect.perform()
    own = role("workers", "NotifierRole")
    assert {call.action for call in calls} == {
        "sns:CreateTopic",
        "sqs:CreateQueue",
        "sqs:GetQueueAttributes",
        "sns:Subscribe",
        "sns:Publish",
    }
    allowed(own, calls)
    key = role("workers", "NotifierRole", TopicKey="the-key")
    allowed(key, [Call("kms:GenerateDataKey", "the-key"), Call("kms:Decrypt", "the-key")])
    refused(
        own, Call("sns:Publish", f"arn:aws:sns:{AT}:tidemark-alarms"), Call("sns:DeleteTopic", f"arn:aws:sns:{AT}:tidemark-alerts"),
        Call("sqs:ReceiveMessage", f"arn:aws:sqs:{AT}:tidemark-alerts"), Call("sqs:SendMessage", f"arn:aws:sqs:{AT}:tidemark-alerts"),
        Call("sns:CreateTopic", f"arn:aws:sns:{AT}:another"), Call("sagemaker:InvokeEndpoint", f"arn:aws:sagemaker:{AT}:endpoint/tidemark"),
        of(bucket, "GetObject", "models/a"),
    )  # fmt: skip


def test_the_scorer_reads_its_model_and_asks_its_endpoint(role: Role, settings: Settings, bucket: str) -> None:
    key = "models/m-0123456789ab/model.tar.gz"
    client("s3").put_object(Bucket=bucket, Key=key, Body=b"package")
    with recorded() as calls:
        assert Composition(settings).package(f"s3://{bucket}/{key}") == b"package"
        with pytest.raises(UnicodeDecodeError):  # the double takes texts alone
            SageMakerEndpoint(settings).score(np.zeros((1, ROW_WIDTH), np.float32))
    own = role("workers", "ScorerRole")
    assert [call.action for call in calls] == ["s3:GetObject", "sagemaker:InvokeEndpoint"]
    allowed(own, calls)
    refused(
        own, Call("sagemaker:InvokeEndpoint", f"arn:aws:sagemaker:{AT}:endpoint/another"), of(bucket, "PutObject", key),
        Call("sagemaker:UpdateEndpoint", f"arn:aws:sagemaker:{AT}:endpoint/tidemark"),
        Call("sns:Publish", f"arn:aws:sns:{AT}:tidemark-alerts"),
    )  # fmt: skip
    refused(role("workers", "AlertsRole"), *calls)
    endpoint = role("scoring", "EndpointRole")
    allowed(endpoint, [of(bucket, "GetObject", key)])
    refused(endpoint, of(bucket, "GetObject", "raw/g1/a"), of(bucket, "PutObject", key))


@pytest.fixture
def s3_server() -> Iterator[tuple[str, list[Call]]]:
    """The double's S3 over HTTP, for clients that are no boto3, and the calls that it is asked for."""
    calls: list[Call] = []
    inner = DomainDispatcherApplication(create_backend_app)

    def noting(environ: dict[str, Any], start: Any) -> Any:
        bucket, _, key = environ["PATH_INFO"].lstrip("/").partition("/")
        calls.extend(object_calls(environ["REQUEST_METHOD"], bucket, key, dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))))
        return inner(environ, start)

    server = make_server("127.0.0.1", 0, noting, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", calls
    finally:
        server.shutdown()
        thread.join()


def test_the_curated_table_is_read_and_written_below_its_prefix(role: Role, bucket: str, s3_server: tuple[str, list[Call]]) -> None:
    address, requests = s3_server
    options = load_settings(s3={"endpoint_url": address, "access_key": "a", "secret_key": "b"}).s3.iceberg_config()
    catalog = SqlCatalog("test", uri="sqlite://", **options)
    catalog.create_namespace(NAMESPACE)
    table = open_table(catalog, 1, bucket)
    empty = columns().empty_table()
    given = {
        "log_topic": [TRANSACTION_EVENTS],
        "log_partition": [0],
        "log_offset": [0],
        "ingested_at": [datetime(2026, 11, 28, tzinfo=UTC)],
    }
    rows = pa.table([pa.array(given.get(field.name, [None]), field.type) for field in empty.schema], schema=empty.schema)
    table.append(rows)
    assert table.scan().to_arrow().num_rows == 1
    calls: list[Call] = []
    assert delete_below(client("s3", calls), bucket, table.location()) > 3
    own = role("workers", "CuratedRole")
    assert {call.action for call in (*requests, *calls)} >= {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"}
    allowed(own, [*requests, *calls])
    refused(own, of(bucket, "DeleteObject", "raw/g1/a"), of(bucket, "PutObject", "raw/g1/a"), of("another", "GetObject", "curated/a"))


def test_each_part_reads_its_own_secret_and_no_other(
    role: Role, monkeypatch: pytest.MonkeyPatch, stacks: dict[str, dict[str, str]]
) -> None:
    arn = client("secretsmanager").create_secret(Name="tidemark/log-settings", SecretString='{"kafka": {"sasl_username": "u"}}')["ARN"]
    monkeypatch.setenv("TIDEMARK_SECRETS_ARN", arn)
    with recorded() as calls:
        assert load_settings().kafka.sasl_username == "u"
    secrets = {
        name: f"arn:aws:secretsmanager:{AT}:secret:{name}" for name in ("WarehouseSettings", "CuratedSettings", "GraphSettings", "Settings")
    }
    secrets["LogSettings"] = arn
    reads = {
        "CommandHandler": "LogSettings", "Archive": "LogSettings", "Curated": "CuratedSettings", "Warehouse": "WarehouseSettings",
        "Graph": "GraphSettings", "Scorer": "LogSettings", "Alerts": "LogSettings", "Notifier": "LogSettings",
    }  # fmt: skip
    allowed(role("workers", "ArchiveRole", **secrets), calls)
    for worker, own in reads.items():
        statements = role("workers", f"{worker}Role", **secrets)
        found = {name for name, secret in secrets.items() if is_allowed(statements, Call("secretsmanager:GetSecretValue", secret))}
        assert found == {own}, worker
    refused(role("workers", "StartRole", **secrets), *calls)


def test_deploy_looks_at_the_endpoint_that_the_template_made(role: Role, settings: Settings, stacks: dict[str, dict[str, str]]) -> None:
    name = stacks["scoring"]["Endpoint"].rpartition("/")[2]  # the double's own, where the template says tidemark
    composition = Composition(settings)
    with recorded() as calls:
        address = serving_address(composition, {"package_uri": PACKAGE}, name)
    assert address == f"https://runtime.sagemaker.{REGION}.amazonaws.com"
    operator = role("operator", "OperatorRole")
    calls[0] = Call(calls[0].action, f"arn:aws:sagemaker:{AT}:endpoint/tidemark")
    allowed(operator, calls)
    refused(operator, Call("sagemaker:DeleteEndpoint", calls[0].resource), Call("sagemaker:InvokeEndpoint", calls[0].resource))
    with pytest.raises(NotReady, match=r"serves s3://bucket/models/m-0123456789ab/model.tar.gz, expected s3://b/other"):
        serving_address(composition, {"package_uri": "s3://b/other"}, name)
    with pytest.raises(NotReady, match=r"cannot be looked at .*make it with infra/aws/scoring.yaml and ModelDataUrl=s3://b/other"):
        serving_address(composition, {"package_uri": "s3://b/other"}, "another")


def test_the_operator_rebuilds_and_keeps_models(role: Role, bucket: str) -> None:
    calls: list[Call] = []
    archive = ArchiveReader(client("s3", calls), bucket, 7)
    write_archive(archive)
    archive.remove()
    client("s3", calls).put_object(Bucket=bucket, Key="models/m-1/model.tar.gz", Body=b"")  # as infra.training puts it
    operator = role("operator", "OperatorRole")
    assert "s3:DeleteObject" in {call.action for call in calls}
    allowed(operator, calls)
    refused(operator, of(bucket, "DeleteObject", "models/a"), of(bucket, "DeleteObject", "quarantine/a"), of(bucket, "PutBucketVersioning"))


def test_the_lake_is_read_by_redshift_and_never_written(role: Role, bucket: str) -> None:
    lake = role("stores", "LakeRole")
    allowed(
        lake,
        [of(bucket, "GetObject", f"raw/g1/{CASE_EVENTS}/a"), Call("glue:GetTable", f"arn:aws:glue:{AT}:table/tidemark/raw_case_events")],
    )
    refused(
        lake,
        of(bucket, "GetObject", "models/a"),
        of(bucket, "PutObject", "raw/a"),
        Call("glue:UpdateTable", f"arn:aws:glue:{AT}:table/tidemark/raw_a"),
    )


def test_doctor_s_looks_are_the_operator_s_to_take(role: Role, settings: Settings) -> None:
    with recorded() as calls:
        composition = Composition(settings)
        doctor.s3(composition)
        doctor.aws(composition)
    own = role("operator", "OperatorRole")
    assert {"s3:DeleteObject", "sns:ListTopics", "sqs:ListQueues", "sagemaker:ListEndpoints"} <= {call.action for call in calls}
    allowed(own, calls)
    refused(own, of(settings.s3.bucket, "DeleteObject", "models/a"), of(settings.s3.bucket, "DeleteObject", "quarantine/a"))
