"""The state folder: remembered ports and secrets, files replaced whole, locks."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from infra.stack.errors import StackError
from infra.stack.state import (
    PORT_NAMES,
    PORT_RANGE,
    PartStatus,
    StackState,
    WorkerSpec,
    is_alive,
    is_free,
    is_locked,
    write_private,
)


@pytest.fixture
def state(tmp_path: Path) -> StackState:
    made = StackState(tmp_path / "demo")
    made.create()
    return made


def test_ports_are_chosen_once_below_the_ephemeral_range_and_all_differ(state: StackState) -> None:
    chosen = [port for part in PORT_NAMES for port in state.ports(part).values()]
    assert len(set(chosen)) == len(chosen)
    assert all(PORT_RANGE[0] <= port < PORT_RANGE[1] for port in chosen)
    again = StackState(state.folder)
    assert [port for part in PORT_NAMES for port in again.ports(part).values()] == chosen


def test_a_taken_port_moves_and_a_free_one_stays(state: StackState) -> None:
    before = dict(state.ports("kafka"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", before["broker"]))
        other.listen()
        note = state.rechoose_taken_ports("kafka")
    after = state.ports("kafka")
    assert after["broker"] != before["broker"]
    assert after["controller"] == before["controller"]
    assert note is not None
    assert str(before["broker"]) in note
    assert str(after["broker"]) in note
    assert state.rechoose_taken_ports("kafka") is None


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert not is_free(other.getsockname()[1])


def test_secrets_are_made_once_differ_and_are_the_owners_alone(state: StackState) -> None:
    first = state.secret("postgres")
    assert state.secret("neo4j") != first
    assert StackState(state.folder).secret("postgres") == first
    assert stat.S_IMODE((state.folder / "secrets.json").stat().st_mode) == 0o600


def test_what_is_wanted_survives_writing_and_reading(state: StackState) -> None:
    worker = WorkerSpec(("a", "b"), {"X": "1"}, ("kafka",), False)
    with state.change_desired() as box:
        box[0] = replace(box[0], parts=("kafka",), workers={"w": worker}, owner=(1, 2.5), is_kafka_secure=True)
    assert StackState(state.folder).desired() == box[0]


def test_writers_of_the_wish_wait_for_each_other(state: StackState) -> None:
    def add(name: str) -> None:
        with state.change_desired() as box:
            box[0] = replace(box[0], workers={**box[0].workers, name: WorkerSpec((name,))})

    threads = [threading.Thread(target=add, args=(f"w{number}",)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(state.desired().workers) == 12


def test_the_status_of_a_dead_supervisor_is_not_believed(state: StackState) -> None:
    state.write_status({"kafka": PartStatus(is_ready=True)})
    assert state.status()["kafka"].is_ready
    content = json.loads((state.folder / "status.json").read_text())
    state.write("status.json", {**content, "supervisor": [2**22 + 1, 0.0]})
    assert state.status() == {}
    assert state.supervisor_pid() is None


def test_a_damaged_file_is_named_with_what_to_do(state: StackState) -> None:
    (state.folder / "desired.json").write_text("{")
    with pytest.raises(StackError, match=r"desired\.json is damaged.*make clean"):
        state.desired()


def test_a_private_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "f"
    write_private(file, "one")
    write_private(file, "two")
    assert file.read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_lock_is_seen_while_it_is_held(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    assert not is_locked(file)
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert is_locked(file)
    assert not is_locked(file)


def test_a_reused_pid_is_not_taken_for_the_process_that_was() -> None:
    assert not is_alive(os.getpid(), 1.0)
