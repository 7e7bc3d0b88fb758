"""What each server's description promises before anything runs: no secret in sight, stable, restartable."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from infra.stack import catalogue
from infra.stack.errors import StackError
from infra.stack.neo4j import current_generation, generation_folder, make_current, prepare_generation
from infra.stack.part import SERVERS
from infra.stack.state import PORT_NAMES, Desired, StackState, WorkerSpec


@pytest.fixture
def state(tmp_path: Path) -> StackState:
    made = StackState(tmp_path / "demo")
    made.create()
    return made


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_shows_no_secret_and_is_described_the_same_each_time(name: str, state: StackState) -> None:
    secrets = [state.secret(secret) for secret in ("kafka", "s3_access_key", "s3_secret_key", "postgres", "neo4j")]
    part = catalogue.server(state, name, Desired())
    shown = " ".join(part.argv) + " ".join(part.env.values())
    assert not [secret for secret in secrets if secret in shown]
    assert part.fingerprint == catalogue.server(state, name, Desired()).fingerprint
    assert set(part.ports) == set(state.ports(name).values())
    assert set(SERVERS) <= set(PORT_NAMES)


def test_an_unknown_part_is_named_beside_the_known(state: StackState) -> None:
    with pytest.raises(StackError, match="'zookeeper'; there are kafka"):
        catalogue.server(state, "zookeeper", Desired())


def test_a_worker_gets_its_own_folder_and_the_whole_environment(state: StackState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANY", "thing")
    part = catalogue.worker(state, "archive", WorkerSpec(("x",), {"A": "1"}, ("kafka",)))
    assert part.folder == state.folder / "workers" / "archive"
    assert catalogue.environment(part)["ANY"] == "thing"
    assert catalogue.environment(part)["A"] == "1"
    assert "ANY" not in catalogue.environment(replace(part, is_worker=False))


def test_the_command_or_environment_changes_the_fingerprint(state: StackState) -> None:
    part = catalogue.worker(state, "w", WorkerSpec(("x",)))
    assert replace(part, argv=("y",)).fingerprint != part.fingerprint
    assert replace(part, env={"A": "1"}).fingerprint != part.fingerprint


def test_a_generation_is_switched_by_its_link(state: StackState) -> None:
    assert current_generation(state) == 1
    make_current(state, 1)
    make_current(state, 7)
    assert current_generation(state) == 7
    assert (state.part_folder("neo4j") / "current").resolve() == generation_folder(state, 7)


def test_a_generation_carries_the_password_as_neo4j_hashes_it(state: StackState) -> None:
    folder = prepare_generation(state, 1)
    line = (folder / "dbms" / "auth.ini").read_text()
    user, credential, *_ = line.split(":")
    algorithm, digest, salt, iterations = credential.split(",")
    value = bytes.fromhex(salt) + state.secret("neo4j").encode()
    for _ in range(int(iterations)):
        value = hashlib.sha256(value).digest()
    assert (user, algorithm, digest) == ("neo4j", "SHA-256", value.hex())
    assert prepare_generation(state, 1) == folder
    assert (folder / "dbms" / "auth.ini").read_text() == line
