"""The Kafka probe against a broker of a few bytes: what it asks, and what it makes of the answers."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from infra.stack.errors import StackError
from infra.stack.kafka_probe import check_coordinators_loaded, check_metadata_and_coordinators

METADATA, FIND_COORDINATOR, LIST_GROUPS, INIT_PRODUCER_ID = 3, 10, 16, 22


@contextmanager
def broker(answer: Callable[[int], bytes | None]) -> Iterator[tuple[str, int]]:
    """Listen; `answer` gives the body for an api key, or None to hang up."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as stream:
            while head := stream.read(4):
                request = stream.read(*struct.unpack(">i", head))
                body = answer(struct.unpack_from(">h", request)[0])
                if body is None:
                    return
                connection.sendall(struct.pack(">ii", len(body) + 4, 0) + body)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()
    finally:
        thread.join(5)
        server.close()


def body(error: int) -> bytes:
    return struct.pack(">ih", 0, error) + b"\x00" * 16


def answers(**errors: int) -> Callable[[int], bytes]:
    codes = {FIND_COORDINATOR: errors.get("find", 0), LIST_GROUPS: errors.get("groups", 0)}
    codes[INIT_PRODUCER_ID] = errors.get("producer", 0)
    brokers = errors.get("brokers", 1)
    return lambda key: struct.pack(">ii", 0, brokers) if key == METADATA else body(codes[key])


def test_a_broker_that_serves_passes() -> None:
    with broker(answers()) as (host, port):
        check_metadata_and_coordinators(host, port)
    with broker(answers()) as (host, port):
        check_coordinators_loaded(host, port)


@pytest.mark.parametrize(
    ("errors", "complaint"),
    [
        pytest.param({"brokers": 0}, "knows no broker", id="no metadata yet"),
        pytest.param({"find": 15}, "group coordinator is not available", id="no coordinator yet"),
    ],
)
def test_a_broker_that_does_not_serve_yet_is_told(errors: dict[str, int], complaint: str) -> None:
    with broker(answers(**errors)) as (host, port), pytest.raises(StackError, match=complaint):
        check_metadata_and_coordinators(host, port)


@pytest.mark.parametrize(("errors", "what"), [({"groups": 14}, "groups"), ({"producer": 14}, "transactions")])
def test_a_coordinator_that_still_loads_is_told(errors: dict[str, int], what: str) -> None:
    with broker(answers(**errors)) as (host, port), pytest.raises(StackError, match=f"{what} are still loading"):
        check_coordinators_loaded(host, port)


def test_a_broker_that_hangs_up_is_told() -> None:
    with broker(lambda key: None) as (host, port), pytest.raises(StackError, match="closed the connection"):
        check_metadata_and_coordinators(host, port)
