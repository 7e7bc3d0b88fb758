"""The proxy of the crash matrix does what it says: a fault that does not take place would prove nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.fault_proxy import FaultProxy


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """In front of a server that answers every piece with itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        proxy = FaultProxy(server.getsockname()[1])
        yield proxy
        proxy.close()


def _echo(server: socket.socket) -> None:
    def answer(found: socket.socket) -> None:
        with found, suppress(OSError):
            while data := found.recv(1024):
                found.sendall(data)

    with suppress(OSError):
        while True:
            threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()


def connect(proxy: FaultProxy) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    found.sendall(b"well")
    assert found.recv(1024) == b"well"
    return found


def test_refused_new_connections_while_an_open_one_goes_on(proxy: FaultProxy) -> None:
    with connect(proxy) as there:
        proxy.strike("refuse")
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        there.sendall(b"still")
        assert there.recv(1024) == b"still"
        proxy.heal()
        connect(proxy).close()


def test_a_reset_ends_what_is_open_and_lets_new_ones_in(proxy: FaultProxy) -> None:
    with connect(proxy) as there:
        proxy.strike("reset")
        with pytest.raises(ConnectionResetError):
            there.recv(1024)
    connect(proxy).close()


def test_a_slow_line_delivers_all_of_it_late(proxy: FaultProxy) -> None:
    with connect(proxy) as there:
        proxy.strike("slow", delay_s=0.2)
        started = time.monotonic()
        there.sendall(b"late")
        assert there.recv(1024) == b"late"
        assert time.monotonic() - started >= 0.4  # there and back: the proxy's own delay, not the machine's


def test_what_a_black_hole_swallows_ends_in_a_reset_once_it_heals(proxy: FaultProxy) -> None:
    with connect(proxy) as there:
        proxy.strike("black_hole")
        there.sendall(b"lost")
        there.settimeout(0.3)
        with pytest.raises(TimeoutError):
            there.recv(1024)
        there.settimeout(5)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            there.recv(1024)
    connect(proxy).close()


def test_a_cut_lets_the_request_through_and_only_a_part_of_the_answer(proxy: FaultProxy) -> None:
    with connect(proxy) as there:
        proxy.strike("cut", after_bytes=3)
        there.sendall(b"whole")
        found = b""
        with suppress(ConnectionResetError):
            while data := there.recv(1):
                found += data
        assert b"who".startswith(found)
    proxy.heal()
    connect(proxy).close()
