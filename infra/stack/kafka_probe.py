"""Asks a Kafka broker by its own protocol whether it serves: metadata, both coordinators, and that they have loaded.

Plain sockets, a few requests of fixed versions: a client library in the supervisor would be another thing to crash
(librdkafka did, when a client was destroyed while its broker was away). Source: the Kafka protocol guide.
"""

from __future__ import annotations

import socket
import struct

from infra.stack.errors import StackError

TIMEOUT_S = 5.0
# Api key and version of each request. All are older than the flexible encoding and still served by Kafka 4.
_METADATA = (3, 7)
_FIND_COORDINATOR = (10, 2)
_LIST_GROUPS = (16, 2)
_INIT_PRODUCER_ID = (22, 1)
_CLIENT_ID = "tidemark-probe"
_TRANSACTION_TIMEOUT_MS = 60_000


def check_metadata_and_coordinators(host: str, port: int) -> None:
    """Demand that the broker knows itself and both coordinators; changes nothing.

    Raises:
        StackError: it does not yet.
        OSError: it cannot be reached.
    """
    with _Connection(host, port) as broker:
        answer = broker.ask(_METADATA, struct.pack(">iB", 0, 0))
        if struct.unpack_from(">i", answer, 4)[0] < 1:
            raise StackError("Kafka knows no broker yet")
        for kind, name in ((0, "group"), (1, "transaction")):
            answer = broker.ask(_FIND_COORDINATOR, _text(_CLIENT_ID) + struct.pack(">b", kind))
            _demand_no_error(answer, f"Kafka's {name} coordinator is not available yet")


def check_coordinators_loaded(host: str, port: int) -> None:
    """Demand that groups can be listed and a transactional producer can begin; takes one producer id.

    Raises:
        StackError: they are still loading.
        OSError: the broker cannot be reached.
    """
    with _Connection(host, port) as broker:
        _demand_no_error(broker.ask(_LIST_GROUPS, b""), "Kafka's groups are still loading")
        body = _text(_CLIENT_ID) + struct.pack(">i", _TRANSACTION_TIMEOUT_MS)
        _demand_no_error(broker.ask(_INIT_PRODUCER_ID, body), "Kafka's transactions are still loading")


class _Connection:
    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=TIMEOUT_S)

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, api: tuple[int, int], body: bytes) -> bytes:
        """Return the answer's body, without its length and correlation id."""
        request = struct.pack(">hhi", *api, 0) + _text(_CLIENT_ID) + body
        self._socket.sendall(struct.pack(">i", len(request)) + request)
        (length,) = struct.unpack(">i", self._read(4))
        return self._read(length)[4:]

    def _read(self, length: int) -> bytes:
        received = bytearray()
        while len(received) < length:
            chunk = self._socket.recv(length - len(received))
            if not chunk:
                raise StackError("Kafka closed the connection")
            received += chunk
        return bytes(received)


def _text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def _demand_no_error(answer: bytes, complaint: str) -> None:
    # Each of these answers starts with the throttle time (int32), then the error code (int16).
    (code,) = struct.unpack_from(">h", answer, 4)
    if code != 0:
        raise StackError(f"{complaint} (error {code})")
