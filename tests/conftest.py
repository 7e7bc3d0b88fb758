"""Fixtures that every test may ask for: one local stack a session, each server started when the first test wants it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from infra.settings import Neo4jSettings, S3Settings, Settings, load_settings
from infra.stack import Stack
from tests.shared_servers import SharedServers


def bare_settings(folder: Path, name: str = "tests") -> Settings:
    """Return settings of a stack below this folder that names no server of the user's."""
    blank = {group: {} for group in ("kafka", "registry", "s3", "warehouse", "curated", "neo4j", "aws", "endpoint")}
    return load_settings(state_dir=folder, stack=name, **blank)


@pytest.fixture(autouse=True)
def _fresh_logging() -> Iterator[None]:
    """Logging as a process starts with it: a test that sets it up must not leave its captured streams to the next."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A stack on free ports of its own. Nothing runs yet: call `stack.up([...])` or ask for a narrower fixture."""
    # Not pytest's tmp_path: that keeps the last three runs, and this holds gigabytes.
    folder = Path(tempfile.mkdtemp(prefix="tidemark-tests-"))
    local = Stack.of(bare_settings(folder))
    try:
        yield local
    finally:
        local.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[SharedServers]:
    """Servers for modules that use the real topics: `own_log` empties them for each. Beside `stack`, which is never emptied."""
    folder = Path(tempfile.mkdtemp(prefix="tidemark-shared-"))
    servers = SharedServers(bare_settings(folder, "own"))
    try:
        yield servers
    finally:
        servers.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stack_settings(stack: Stack) -> Settings:
    """Settings of the whole stack, every server ready."""
    stack.up(is_tethered=True)
    return stack.settings()


@pytest.fixture(scope="session")
def kafka_bootstrap(stack: Stack) -> str:
    """Address of a running Kafka."""
    return stack.up(["kafka"], is_tethered=True).kafka


@pytest.fixture(scope="session")
def registry_url(stack: Stack) -> str:
    """Address of a running schema registry, its global compatibility FULL_TRANSITIVE."""
    return stack.up(["registry"], is_tethered=True).registry


@pytest.fixture(scope="session")
def s3_settings(stack: Stack) -> S3Settings:
    """A running object store whose bucket exists."""
    stack.up(["s3"], is_tethered=True)
    return stack.settings().s3


@pytest.fixture(scope="session")
def postgres_dsn(stack: Stack) -> str:
    """Address of a running Postgres, password included."""
    return stack.up(["postgres"], is_tethered=True).postgres_dsn.get_secret_value()


@pytest.fixture(scope="session")
def neo4j_settings(stack: Stack) -> Neo4jSettings:
    """A running Neo4j."""
    stack.up(["neo4j"], is_tethered=True)
    return stack.settings().neo4j


@pytest.fixture(scope="session")
def aws_url(stack: Stack) -> str:
    """Address of the running AWS double."""
    return stack.up(["aws"], is_tethered=True).aws
