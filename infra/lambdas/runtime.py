"""Runs a function's zip as Lambda does: AWS's own runtime client in a process of its own, fed by a Runtime API on loopback.

Served are the four calls of the Runtime API that the client makes. An environment is one process: started cold, kept warm, ended when
it dies or takes too long, and then started cold again.

Source: AWS Lambda Developer Guide, "Using the Lambda runtime API"; the client is `awslambdaric`.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil

from domain.errors import TidemarkError
from infra.settings import process_environment

_API = "/2018-06-01/runtime"
_STOP_S = 5.0
_LOOK_S = 0.25  # how often a silent environment is looked at whether it lives
# As Lambda's own image: nothing of the caller's Python but its standard library, then the function and the runtime beside it.
_BOOT = "import sys; sys.path[:0] = sys.argv[1:3]; from awslambdaric.__main__ import main; main(['awslambdaric', sys.argv[3]])"


class FunctionError(TidemarkError):
    """A function failed: it raised, died, or took longer than it may. `kind` is Lambda's name for it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call's answer, and what Lambda's REPORT line says of it. `init_ms` is set where the environment was started for it."""

    answer: Any
    duration_ms: float
    init_ms: float | None
    memory_mb: float


@dataclass(slots=True)
class _Call:
    request_id: str
    body: bytes
    deadline_ms: int
    answer: queue.Queue[tuple[str, bytes]]


class FunctionHost:
    """One environment of a function. Used by one thread at a time.

    Args:
        name: the function's name.
        code: the unpacked zip.
        runtime: a folder with `awslambdaric` and `boto3`, which Lambda's image brings along.
        handler: `module.function` in Lambda's words, dots within the module as slashes.
        variables: the function's environment.
        timeout_s: the longest that a call may take.
        memory_mb: told to the function; not held here.
        log: where its output goes; dropped when none is given.
    """

    def __init__(
        self,
        name: str,
        code: Path,
        runtime: Path,
        handler: str,
        variables: Mapping[str, str],
        *,
        timeout_s: float = 60.0,
        memory_mb: int = 512,
        log: IO[bytes] | None = None,
    ) -> None:
        self._name, self._code, self._runtime, self._handler = name, code, runtime, handler
        self._timeout_s, self._memory_mb, self._log = timeout_s, memory_mb, log
        self._calls: queue.Queue[_Call] = queue.Queue()
        self._current: _Call | None = None
        self._init: queue.Queue[str | None] = queue.Queue()
        self._process: subprocess.Popen[bytes] | None = None
        self._server = _Server(("127.0.0.1", 0), _handler_class(self))
        self._variables = {**variables, **self._reserved()}
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def invoke(self, event: Mapping[str, Any]) -> Invocation:
        """Call the function with an event.

        Raises:
            FunctionError: it raised, died, or took too long; its environment starts anew with the next call in the two latter cases.
        """
        init_ms = self._start() if self._process is None or self._process.poll() is not None else None
        assert self._process is not None
        call = _Call(str(uuid.uuid4()), json.dumps(event).encode(), round((time.time() + self._timeout_s) * 1000), queue.Queue())
        started = time.monotonic()
        self._calls.put(call)
        kind, body = self._await(call, started)
        duration_ms = (time.monotonic() - started) * 1000
        memory_mb = 0.0
        with suppress(psutil.Error):
            memory_mb = psutil.Process(self._process.pid).memory_info().rss / 2**20
        if kind == "error":
            said = json.loads(body)
            raise FunctionError(str(said.get("errorType", "Unhandled")), str(said.get("errorMessage", ""))[:2000])
        return Invocation(json.loads(body) if body else None, round(duration_ms, 2), init_ms, round(memory_mb, 1))

    def close(self) -> None:
        """End the environment."""
        self._end()
        self._server.shutdown()
        self._server.server_close()

    def _reserved(self) -> dict[str, str]:
        return {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_address[1]}", "_HANDLER": self._handler,
            "LAMBDA_TASK_ROOT": str(self._code), "LAMBDA_RUNTIME_DIR": str(self._runtime),
            "AWS_LAMBDA_FUNCTION_NAME": self._name, "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self._memory_mb), "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self._name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "local", "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info[0]}.{sys.version_info[1]}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip

    def _start(self) -> float:
        self._end()
        self._calls, self._init, self._current = queue.Queue(), queue.Queue(), None
        started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOT, str(self._code), str(self._runtime), self._handler],
            cwd=self._code, env=process_environment(self._variables), stdin=subprocess.DEVNULL,
            stdout=self._log or subprocess.DEVNULL, stderr=subprocess.STDOUT,
        )  # fmt: skip
        while time.monotonic() - started < self._timeout_s:
            with suppress(queue.Empty):
                problem = self._init.get(timeout=_LOOK_S)
                if problem is not None:
                    self._end()
                    raise FunctionError("Runtime.InitError", problem)
                return round((time.monotonic() - started) * 1000, 2)
            if self._process.poll() is not None:
                raise FunctionError("Runtime.InitError", f"the process ended with status {self._process.returncode} before it was ready")
        self._end()
        raise FunctionError("Runtime.InitError", f"not ready in {self._timeout_s:.0f} s")

    def _await(self, call: _Call, started: float) -> tuple[str, bytes]:
        assert self._process is not None
        while time.monotonic() - started < self._timeout_s:
            with suppress(queue.Empty):
                return call.answer.get(timeout=_LOOK_S)
            if self._process.poll() is not None:
                with suppress(queue.Empty):  # answered, and then died
                    return call.answer.get_nowait()
                raise FunctionError("Runtime.ExitError", f"the process ended with status {self._process.returncode}")
        self._end()
        raise FunctionError("Sandbox.Timedout", f"no answer in {self._timeout_s:.2f} seconds")

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: an environment that was ended leaves its connection open, and whoever called is told otherwise."""


def _handler_class(host: FunctionHost) -> type[BaseHTTPRequestHandler]:
    class RuntimeApi(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: otherwise each call waits for a delayed acknowledgement
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path != f"{_API}/invocation/next":
                return self._answer(404)
            calls = host._calls
            host._init.put(None)
            while True:
                with suppress(queue.Empty):
                    call = calls.get(timeout=_LOOK_S)
                    break
                if calls is not host._calls:  # a later environment's turn
                    return self._answer(410)
            host._current = call
            arn = f"arn:aws:lambda:local:000000000000:function:{host._name}"
            return self._answer(
                200, call.body,
                {
                    "Lambda-Runtime-Aws-Request-Id": call.request_id, "Lambda-Runtime-Deadline-Ms": str(call.deadline_ms),
                    "Lambda-Runtime-Invoked-Function-Arn": arn, "Content-Type": "application/json",
                },
            )  # fmt: skip

        def do_POST(self) -> None:
            body = self._body()
            if self.path == f"{_API}/init/error":
                said = json.loads(body or b"{}")
                host._init.put(f"{said.get('errorType')}: {said.get('errorMessage')}")
                return self._answer(202)
            _, _, rest = self.path.partition(f"{_API}/invocation/")
            request_id, _, what = rest.partition("/")
            call = host._current
            if call is None or call.request_id != request_id or what not in ("response", "error"):
                return self._answer(404)
            host._current = None
            call.answer.put((what, body))
            return self._answer(202)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the function's own log tells."""

    return RuntimeApi
