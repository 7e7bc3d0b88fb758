"""Checks each server by its protocol and by the rights that Tidemark needs there: one sentence each, with what to do.

What a check writes it removes again; nothing of a user's is touched.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from botocore.exceptions import BotoCoreError, ClientError

from domain.errors import TidemarkError
from infra.composition import Composition
from infra.kafka.transactions import KafkaTransactions
from schema_registry.client import COMPATIBILITY
from schema_registry.contracts import COMMANDS, PARTITIONS, contracts

CONNECT_TIMEOUT_S = 5.0
HTTP_TIMEOUT_S = 5.0
SCRATCH = "tidemark-doctor"
_START = "start it with `tidemark up`, or set its address"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one server. `advice` says what to do where it is not well, and is empty where it is."""

    server: str
    is_ok: bool
    message: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        """The finding as plain values."""
        return {"server": self.server, "ok": self.is_ok, "message": self.message, "advice": self.advice}


class Unwell(Exception):
    """A check failed: what was found, and what to do."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.message, self.advice = message, advice


def examine(composition: Composition) -> Iterator[Finding]:
    """Check every server, one finding each, in the order in which they depend on each other."""
    for server, (check, advice) in CHECKS.items():
        try:
            yield Finding(server, True, check(composition))
        except Unwell as found:
            yield Finding(server, False, found.message, found.advice)
        except (TidemarkError, ClientError, BotoCoreError, httpx.HTTPError, OSError) as error:
            yield Finding(server, False, _sentence(error), advice)


def kafka(composition: Composition) -> str:
    """Metadata, the group coordinator, and a transaction.

    Raises:
        Unwell: a broker cannot be reached, or the topics are missing.
        LogError: a right is missing.
    """
    bootstrap = composition.settings.kafka.bootstrap
    if not bootstrap:
        raise Unwell("no address is known", _START)
    # By socket first: librdkafka retries a dead broker for ever, and reports late.
    _reach(bootstrap.split(",")[0])
    admin = composition.clients.admin
    missing = admin.missing(PARTITIONS)
    topics = f"{len(PARTITIONS)} topics" if not missing else f"{len(missing)} of {len(PARTITIONS)} topics not made yet"
    transactions = KafkaTransactions(composition.clients.kafka, SCRATCH, SCRATCH, (), admin)
    try:
        transactions.commit((), (), {} if missing else {(COMMANDS, 0): 0})
    finally:
        transactions.close()
    return f"answers, takes a transaction; {topics}"


def registry(composition: Composition) -> str:
    """The compatibility mode and every contract.

    Raises:
        Unwell: another mode.
        RegistryError: a contract is missing or differs.
    """
    settings = composition.settings.registry
    if not settings.url:
        raise Unwell("no address is known", _START)
    secret = settings.password.get_secret_value() if settings.password is not None else ""
    auth = (settings.username, secret) if settings.username is not None else None
    answer = httpx.get(f"{settings.url.rstrip('/')}/config", auth=auth, timeout=HTTP_TIMEOUT_S, trust_env=False)
    mode = answer.raise_for_status().json().get("compatibilityLevel")
    if mode not in (COMPATIBILITY, None, "NONE"):
        raise Unwell(f"compatibility is {mode}, expected {COMPATIBILITY}", f"set the global compatibility to {COMPATIBILITY}")
    if not composition.clients.registry.versions(contracts()["TransactionRecorded"].subject):
        return "answers; no contract is registered yet (the first command that starts the log registers them)"
    if mode != COMPATIBILITY:
        raise Unwell(f"compatibility is {mode}, expected {COMPATIBILITY}", f"set the global compatibility to {COMPATIBILITY}")
    composition.clients.registry.catalog()
    return f"answers; {COMPATIBILITY}; all {len(contracts())} contracts equal this code's"


def s3(composition: Composition) -> str:
    """An object put create-once: the second put of the same key must be refused, or two archives could overlap.

    Raises:
        Unwell: the store does not refuse it.
        ClientError: a right is missing.
    """
    bucket = composition.settings.s3.bucket
    client = composition.clients.s3
    composition.archive(1).prepare()
    key = f"{SCRATCH}/{secrets.token_hex(8)}"
    client.put_object(Bucket=bucket, Key=key, Body=b"1", IfNoneMatch="*")
    try:
        client.put_object(Bucket=bucket, Key=key, Body=b"2", IfNoneMatch="*")
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in (409, 412):
            raise
    else:
        raise Unwell(
            "puts an object twice although it was told to put it once",
            "use a store that honours If-None-Match (S3 does)",
        )
    finally:
        client.delete_object(Bucket=bucket, Key=key)
    return f"answers; the bucket {bucket} takes, refuses a second put of the same key, and deletes"


def postgres(composition: Composition) -> str:
    """A table of the session, and the right to make schemas.

    Raises:
        Unwell: no right to make schemas, or it cannot be reached.
    """
    import psycopg

    if not composition.warehouse_dsn:
        raise Unwell("no address is known", _START)
    if composition.warehouse_dsn.startswith("redshift"):
        return redshift(composition)
    try:
        with psycopg.connect(composition.warehouse_dsn, connect_timeout=int(CONNECT_TIMEOUT_S)) as connection:
            connection.execute("CREATE TEMPORARY TABLE tidemark_doctor (value integer)")
            row = connection.execute("SELECT version(), has_database_privilege(current_database(), 'CREATE'), current_user").fetchone()
            connection.rollback()
    except psycopg.Error as error:
        raise Unwell(
            _sentence(error), "start it with `tidemark up`, or check the address, user and password of TIDEMARK_WAREHOUSE__DSN"
        ) from error
    version, may_create, user = row if row is not None else ("", False, "")
    if not may_create:
        raise Unwell(f"{user} may not make schemas", f"GRANT CREATE ON DATABASE … TO {user}")
    return f"{' '.join(str(version).split()[:2])}; {user} may make tables and schemas"


def redshift(composition: Composition) -> str:
    """The right to make schemas. COPY is tried by no check: it needs a table.

    Raises:
        Unwell: no right to make schemas, or it cannot be reached.
    """
    from projections.errors import ProjectionError

    try:
        assert composition.redshift is not None
        version, user, may_create = composition.redshift.check()
    except ProjectionError as error:
        raise Unwell(_sentence(error), "check the address, user, password and role of TIDEMARK_WAREHOUSE__DSN and __IAM_ROLE") from error
    if not may_create:
        raise Unwell(f"{user} may not make schemas", f"GRANT CREATE ON DATABASE … TO {user}")
    return f"{version}; {user} may make schemas; COPY was not tried"


def neo4j(composition: Composition) -> str:
    """Login, version and indexes.

    Raises:
        Unwell: the login is refused, it is too old, or an index is not online.
    """
    from neo4j.exceptions import AuthError, DriverError, Neo4jError

    settings = composition.settings.neo4j
    if not settings.uri:
        if composition.settings.kafka.bootstrap:
            return "not used: no address is set"
        raise Unwell("no address is known", _START)
    _reach(settings.uri.partition("://")[2].partition("/")[0], 7687)
    driver = composition.clients.neo4j
    try:
        found, _, _ = driver.execute_query("CALL dbms.components() YIELD versions, edition RETURN versions[0] AS version, edition")
        indexes, _, _ = driver.execute_query("SHOW INDEXES YIELD name, state", database_=settings.database)
    except AuthError as error:
        raise Unwell("the login is refused", "check TIDEMARK_NEO4J__USER and TIDEMARK_NEO4J__PASSWORD") from error
    except (DriverError, Neo4jError) as error:
        raise Unwell(_sentence(error), "see its log; `tidemark status` names it") from error
    version = str(found[0]["version"])
    if int(version.split(".")[0]) < 5:
        raise Unwell(f"Neo4j {version}", "use Neo4j 5.9 or later")
    broken = [index["name"] for index in indexes if index["state"] == "FAILED"]
    if broken:
        raise Unwell(f"indexes have failed: {', '.join(broken)}", "run `tidemark rebuild graph`")
    building = sum(index["state"] != "ONLINE" for index in indexes)
    waiting = f", {building} still building" if building else ""
    return f"{version} {found[0]['edition']}; login works; {len(indexes)} indexes{waiting}"


def aws(composition: Composition) -> str:
    """SNS, SQS and SageMaker answer.

    Raises:
        ClientError: a right is missing.
    """
    topics = len(composition.clients.aws("sns").list_topics().get("Topics", []))
    queues = len(composition.clients.aws("sqs").list_queues().get("QueueUrls", []))
    endpoints = [item["EndpointName"] for item in composition.clients.aws("sagemaker").list_endpoints()["Endpoints"]]
    return f"answers; {topics} topics, {queues} queues, endpoints: {', '.join(endpoints) or 'none yet'}"


def endpoint(composition: Composition) -> str:
    """The deployed model answers `/ping`.

    Raises:
        Unwell: a model is deployed and nothing answers.
    """
    deployed = composition.log.deployed()
    if deployed is None:
        return "no model is deployed yet"
    url = composition.settings.endpoint.url
    if not url:
        return f"{deployed.model_version} is deployed; SageMaker serves it"
    try:
        httpx.get(f"{url.rstrip('/')}/ping", timeout=HTTP_TIMEOUT_S, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise Unwell(f"{url} does not answer: {_sentence(error)}", "run `tidemark deploy`; its log is endpoint.log") from error
    return f"answers at {url} for {deployed.model_version}"


Check = Callable[[Composition], str]
CHECKS: dict[str, tuple[Check, str]] = {
    "kafka": (
        kafka,
        "check its address and the rights of the user: read and write on every topic, idempotent and transactional writes",
    ),
    "registry": (registry, "start it with `tidemark up`, or check TIDEMARK_REGISTRY__URL"),
    "s3": (s3, "start it with `tidemark up`, or check address, keys and the bucket's rights: list, get, put, delete"),
    "postgres": (postgres, "start it with `tidemark up`, or check TIDEMARK_WAREHOUSE__DSN"),
    "neo4j": (neo4j, "start it with `tidemark up`, or check TIDEMARK_NEO4J__URI"),
    "aws": (aws, "start it with `tidemark up`, or check the credentials and rights: sns, sqs, sagemaker"),
    "endpoint": (endpoint, "start the log first (`tidemark up`): without it nobody knows which model is deployed"),
}
"""What is checked, and what to do where nothing closer is known."""


def _reach(address: str, port: int = 9092) -> None:
    host, _, given = address.rpartition(":")
    number = int(given) if given.isdigit() and host else port
    try:
        socket.create_connection(((host or address).strip("[]"), number), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise Unwell(f"{address} cannot be reached: {error}", _START) from error


def _sentence(error: BaseException) -> str:
    """The first line of an error, which says what; the rest says where in its library."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
