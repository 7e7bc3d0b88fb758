"""Fixtures that every test may ask for: one local stack a session, each server started when the first test wants it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from infra.settings import Neo4jSettings, S3Settings, Settings, load_settings
from infra.stack import Stack
from tests.shared_servers import SharedServers

# The servers of tests live for minutes: what Java's second compiler would take of two cores, it never gives back.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


def bare_settings(folder: Path, name: str = "tests") -> Settings:
    """Return settings of a stack below this folder that names no server of the user's."""
    blank = {
        group: {}
        for group in ("kafka", "registry", "s3", "warehouse", "curated", "neo4j", "aws", "endpoint", "kinesis", "card_alerts", "spark")
    }
    return load_settings(state_dir=folder, stack=name, **blank)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say at once what failed and of what: a run that is cut off never comes to its summary."""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        said = str(getattr(crash, "message", report.longrepr)).splitlines() or [""]
        print(f"\nFAILED {report.nodeid} ({report.when}): {said[0][:500]}", flush=True)


@pytest.fixture(autouse=True)
def _fresh_logging() -> Iterator[None]:
    """Logging as a process starts with it: a test that sets it up must not leave its captured streams to the next."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[SharedServers]:
    """The servers of this session, on free ports of their own. Nothing runs yet. `own_log` empties them for a module."""
    # Not pytest's tmp_path: that keeps the last three runs, and this holds gigabytes.
    folder = Path(tempfile.mkdtemp(prefix="tidemark-tests-"))
    servers = SharedServers(bare_settings(folder))
    try:
        yield servers
    finally:
        servers.close()
        shutil.rmtree(folder, ignore_errors=True)


# Below, a module at a time: one between may have had servers stopped.
@pytest.fixture(scope="module")
def stack(shared_servers: SharedServers) -> Stack:
    """The stack of these servers, with whatever other modules left there: call `stack.up([...])` or ask for a narrower fixture."""
    return shared_servers.stack


@pytest.fixture(scope="module")
def kafka_bootstrap(stack: Stack) -> str:
    """Address of a running Kafka."""
    return stack.up(["kafka"], is_tethered=True).kafka


@pytest.fixture(scope="module")
def registry_url(stack: Stack) -> str:
    """Address of a running schema registry, its global compatibility FULL_TRANSITIVE."""
    return stack.up(["registry"], is_tethered=True).registry


@pytest.fixture(scope="module")
def s3_settings(stack: Stack) -> S3Settings:
    """A running object store whose bucket exists."""
    stack.up(["s3"], is_tethered=True)
    return stack.settings().s3


@pytest.fixture(scope="module")
def postgres_dsn(stack: Stack) -> str:
    """Address of a running Postgres, password included."""
    return stack.up(["postgres"], is_tethered=True).postgres_dsn.get_secret_value()


@pytest.fixture(scope="module")
def neo4j_settings(stack: Stack) -> Neo4jSettings:
    """A running Neo4j."""
    stack.up(["neo4j"], is_tethered=True)
    return stack.settings().neo4j


@pytest.fixture(scope="module")
def aws_url(stack: Stack) -> str:
    """Address of the running AWS double."""
    return stack.up(["aws"], is_tethered=True).aws
