"""A stand-in for a Redshift cluster: speaks PostgreSQL's protocol to Amazon's driver on one side and to a real Postgres on the other.

It says 8.0.2, takes Redshift's dialect and refuses what Redshift refuses (`redshift_dialect`), runs every transaction serializable
with Redshift's error 1023, really performs COPY of a manifest's Parquet files from S3 inside the session's own transaction, and can
lose a COMMIT or its answer.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

from tests.integration.projections.redshift_copy import Copy, CopyRefused, csv_of
from tests.integration.projections.redshift_dialect import to_postgres

_SSL_REQUEST = 80_877_103
_SASL = struct.pack("!i", 10)
_KNOWN_TO_POSTGRES = {"user", "database", "application_name"}
_NUL = b"\0"
Lost = Literal["before", "after"]


class RedshiftProxy:
    """Listens on loopback until `stop`; every connection is a session of its own.

    Args:
        target: host and port of Postgres.
        s3: the boto3 client that COPY reads with.
        roles: the IAM roles that this cluster has.
    """

    def __init__(self, target: tuple[str, int], s3: Any, roles: tuple[str, ...]) -> None:
        self.target = target
        self.s3 = s3
        self.roles = roles
        self.statements: list[str] = []
        self.lost: Lost | None = None
        self.conflicts = 0
        self._sessions: list[_Session] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_next_commit(self, when: Lost) -> None:
        """Cut the next session that commits a COPY: before the server saw its COMMIT, or after it committed."""
        self.lost = when

    def refuse_next_insert(self) -> None:
        """Answer the next INSERT of facts with error 1023."""
        self.conflicts += 1

    def stop(self) -> None:
        self._listener.close()
        for session in self._sessions:
            session.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                session = _Session(self, client)
                self._sessions.append(session)
                threading.Thread(target=session.run, daemon=True).start()


class _Session:
    def __init__(self, proxy: RedshiftProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = socket.create_connection(proxy.target)
        for one in (client, self._server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._statements: dict[bytes, str | Copy] = {}
        self._portals: dict[bytes, str | Copy] = {}
        self._copy_answers: queue.Queue[bytes] = queue.Queue()
        self._is_copying = False
        self._has_copied = False
        self._loses_answer = False

    def cut(self) -> None:
        for one in (self._client, self._server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def run(self) -> None:
        try:
            self._start()
            threading.Thread(target=self._guarded, args=(self._down,), daemon=True).start()
            self._up()
        except (OSError, EOFError):
            pass
        finally:
            self.cut()

    def _guarded(self, pump: Any) -> None:
        try:
            pump()
        except (OSError, EOFError):
            pass
        finally:
            self._copy_answers.put(b"E")
            self.cut()

    def _start(self) -> None:
        while True:
            (length,) = struct.unpack("!i", _exactly(self._client, 4))
            body = _exactly(self._client, length - 4)
            if struct.unpack("!i", body[:4])[0] != _SSL_REQUEST:
                break
            self._client.sendall(b"N")
        words = body[4:].split(_NUL)
        given = {key.decode(): value.decode() for key, value in zip(words[::2], words[1::2], strict=False) if key}
        kept = {key: value for key, value in given.items() if key in _KNOWN_TO_POSTGRES}
        kept["options"] = "-c default_transaction_isolation=serializable"
        body = body[:4] + b"".join(key.encode() + _NUL + value.encode() + _NUL for key, value in kept.items()) + _NUL
        self._server.sendall(struct.pack("!i", len(body) + 4) + body)

    def _up(self) -> None:
        """From the driver to the server."""
        for kind, body in _messages(self._client):
            if kind == b"P":
                body = self._parse(body)
            elif kind == b"B":
                portal, statement, _ = body.split(_NUL, 2)
                self._portals[portal] = self._statements.get(statement, "")
            elif kind == b"E":
                running = self._portals.get(body.split(_NUL, 1)[0], "")
                if isinstance(running, Copy):
                    self._copy(running, body)
                    continue
                if running == "commit" and self._has_copied:
                    self._has_copied = False
                    lost, self._proxy.lost = self._proxy.lost, None
                    if lost == "before":
                        raise EOFError
                    self._loses_answer = lost == "after"
            _send(self._server, kind, body)

    def _parse(self, body: bytes) -> bytes:
        name, statement, rest = body.split(_NUL, 2)
        text = statement.decode()
        self._proxy.statements.append(text)
        if text.upper().startswith("COPY "):
            copy = Copy.parse(text, self._proxy.roles)
            self._statements[name] = copy
            given = f"COPY {copy.table} FROM STDIN (FORMAT csv)"
        else:
            is_refused = self._proxy.conflicts > 0 and text.startswith("INSERT INTO fact_")
            self._proxy.conflicts -= is_refused
            self._statements[name] = text.strip().lower()
            given = to_postgres(text, has_conflict=is_refused)
        return name + _NUL + given.encode() + _NUL + rest

    def _copy(self, copy: Copy, execute: bytes) -> None:
        """Postgres asks for the data of its own COPY; it gets what the manifest names."""
        self._is_copying = True
        _send(self._server, b"E", execute)
        _send(self._server, b"H", b"")
        if self._copy_answers.get() == b"G":
            try:
                for piece in csv_of(copy, self._proxy.s3):
                    _send(self._server, b"d", piece)
                _send(self._server, b"c", b"")
                self._has_copied = True
            except CopyRefused as error:
                _send(self._server, b"f", str(error).encode() + _NUL)
        self._is_copying = False

    def _down(self) -> None:
        """From the server to the driver."""
        for kind, body in _messages(self._server):
            if kind == b"G":
                self._copy_answers.put(b"G")
                continue
            if kind == b"E":
                body = _as_redshift_says(body)
                if self._is_copying:
                    self._copy_answers.put(b"E")
            elif kind == b"R" and body[:4] == _SASL:
                body = body[:-1]  # a cluster never asks for SCRAM, so the driver counts the list's closing zero as a mechanism
            elif kind == b"S" and body.startswith(b"server_version\0"):
                body = b"server_version\0008.0.2\0"
            elif kind == b"C" and self._loses_answer and body == b"COMMIT\0":
                raise EOFError
            _send(self._client, kind, body)


def _as_redshift_says(body: bytes) -> bytes:
    fields = {part[:1]: part[1:] for part in body.split(_NUL) if part}
    if fields.get(b"C") in (b"40001", b"40P01"):
        fields |= {b"C": b"XX000", b"M": b"1023", b"D": b"Serializable isolation violation on a table in Redshift"}
    elif b"COPY from stdin failed: " in fields.get(b"M", b""):
        fields |= {b"C": b"XX000", b"M": fields[b"M"].replace(b"COPY from stdin failed: ", b"")}
    return b"".join(key + value + _NUL for key, value in fields.items()) + _NUL


def _messages(sock: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    while True:
        head = _exactly(sock, 5)
        yield head[:1], _exactly(sock, struct.unpack("!i", head[1:])[0] - 4)


def _send(sock: socket.socket, kind: bytes, body: bytes) -> None:
    sock.sendall(kind + struct.pack("!i", len(body) + 4) + body)


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        piece = sock.recv(min(size - len(found), 1 << 20))
        if not piece:
            raise EOFError
        found += piece
    return bytes(found)


@contextmanager
def running(proxy: RedshiftProxy) -> Iterator[RedshiftProxy]:
    """The proxy, stopped afterwards with all its sessions."""
    try:
        yield proxy
    finally:
        proxy.stop()
