"""A TCP proxy that does to a connection what networks do: refuses, resets, delays, swallows, cuts in the middle of an answer.

It runs in a thread of its own and knows nothing of what it carries.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, Literal

LOOPBACK: Final = "127.0.0.1"
CHUNK: Final = 16 << 10
Fault = Literal["refuse", "reset", "slow", "black_hole", "cut"]
FAULTS: Final[tuple[Fault, ...]] = ("refuse", "reset", "slow", "black_hole", "cut")
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST, and what was not sent is lost


class FaultProxy:
    """Carries connections from `port` to a port of this machine, well until told otherwise.

    Args:
        target: the server's port.
        port: where to listen; a free one by default.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._fault: Fault | None = None
        self._delay_s, self._left = 0.0, 0
        self.struck = 0
        """Connections that a fault has hit."""
        self.port = port
        self._do(self._listen())

    def strike(self, fault: Fault, *, delay_s: float = 0.05, after_bytes: int = 0) -> None:
        """Begin a fault; it lasts until `heal`.

        `refuse`: nobody listens, and what is open stays. `reset`: every open connection ends with RST; new ones are well. `slow`: each
        piece waits `delay_s` seconds. `black_hole`: what is sent arrives nowhere, without an error. `cut`: each connection ends with RST
        after the server has answered `after_bytes` more bytes, so that a request is done and its answer lost.
        """
        self._fault, self._delay_s, self._left = fault, delay_s, after_bytes
        if fault == "refuse":
            self.struck += 1
            self._do(self._deafen())
        elif fault == "reset":
            self._fault = None
            self._do(self._reset_all())

    def heal(self) -> None:
        """End the fault. Connections whose bytes were swallowed are reset: their streams have holes."""
        fault, self._fault = self._fault, None
        if fault == "refuse":
            self._do(self._listen())
        elif fault == "black_hole":
            self._do(self._reset_all())

    def close(self) -> None:
        """Stop listening and let every connection go."""
        self._do(self._deafen())
        self._do(self._reset_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._carry, LOOPBACK, self.port, reuse_address=True)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _deafen(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _reset_all(self) -> None:
        self.struck += len(self._open) // 2
        for writer in list(self._open):
            _reset(writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:
            _reset(writer)
            return
        pair = (writer, back)
        self._open.update(pair)
        try:
            await asyncio.gather(self._pump(reader, back, pair, False), self._pump(there, writer, pair, True))
        finally:
            self._open.difference_update(pair)
            for end in pair:
                with suppress(OSError, RuntimeError):
                    end.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: tuple[asyncio.StreamWriter, ...], is_answer: bool
    ) -> None:
        left: int | None = None
        try:
            while data := await reader.read(CHUNK):
                fault = self._fault
                if fault == "black_hole":
                    self.struck += 1
                    continue
                if fault == "slow":
                    self.struck += is_answer
                    await asyncio.sleep(self._delay_s)
                if fault != "cut":
                    left = None
                elif is_answer:
                    left = self._left if left is None else left
                    data, left = data[:left], left - len(data)
                writer.write(data)
                await writer.drain()
                if left is not None and left <= 0:
                    self.struck += 1
                    for end in pair:
                        _reset(end)
                    return
            writer.write_eof()
        except (OSError, RuntimeError):
            for end in pair:
                _reset(end)

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, RuntimeError):
        found = writer.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()


__all__ = ["FAULTS", "Fault", "FaultProxy"]
