"""The scoring endpoint: SageMaker's container contract (`/ping`, `/invocations`) and, here, its runtime's path by
endpoint name.

Specification 1, POST /invocations or /endpoints/<name>/invocations:
- `application/json`: {"spec": 1, "rows": [[number or null, ...], ...]}; `application/x-npy`: a float32 or float64
array [n, width].
- A row is one wallet's side of one transaction, columns as `row_names` of GET /spec: features, own embedding,
counterparty's embedding;
  null or NaN for what does not exist. At most MOST_ROWS rows.
- Answer: {"model_version", "scores": [n], "features_only_scores": [n]}, each in [0, 1], 6 decimals; with `Accept:
application/x-npy` a float64
  array [n, 2] and the header X-Model-Version.
- A wrong request: 4xx {"error": {"code", "mistakes": [{"field", "message"}]}}; codes: not_found, method_not_allowed,
  unsupported_content_type, not_acceptable, too_large, malformed_body, invalid_request.
It imports no torch. A new model is loaded by a restart.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ml.errors import RequestError
from ml.head import ROW_NAMES, ROW_WIDTH
from ml.packaging import ServingModel, files_of, serving_model, serving_model_of

SPEC_VERSION: Final = 1
JSON: Final = "application/json"
NPY: Final = "application/x-npy"
MOST_ROWS: Final = 10_000
MOST_BODY_BYTES: Final = 64 * 1024 * 1024
MOST_MISTAKES: Final = 20  # listed in an answer; more would only hide the first
FEW_ROWS: Final = 16  # below, starting a second thread costs more than it saves

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def model_fn(model_dir: str) -> ServingModel:
    """Load an unpacked package, as SageMaker mounts it.

    Raises PackageError where a part is missing or of another format.
    """
    return serving_model_of(files_of(Path(model_dir)))


def input_fn(body: bytes, content_type: str) -> NDArray[np.float32]:
    """A request body as rows float32 [n, ROW_WIDTH].

    Raises RequestError with every mistake found.
    """
    kind = content_type.split(";")[0].strip().lower()
    if kind == NPY:
        return _checked(_from_npy(body))
    if kind == JSON:
        return _from_json(body)
    raise RequestError("unsupported_content_type", 415, [("Content-Type", f"expected {JSON} or {NPY}, found {content_type[:100]!r}")])


def predict_fn(rows: NDArray[np.float32], model: ServingModel) -> NDArray[np.float64]:
    """Scores float64 [n, 2] of rows [n, ROW_WIDTH]: the model's, and that on features alone, for comparison."""
    threads = 1 if len(rows) <= FEW_ROWS else 2
    return model.head.scores(rows, threads)


def output_fn(scores: NDArray[np.float64], accept: str, model_version: str = "") -> tuple[bytes, str]:
    """Scores [n, 2] as a body and its content type.

    Raises RequestError where the caller accepts neither form.
    """
    accepted = [part.split(";")[0].strip().lower() for part in accept.split(",") if part.strip()]
    if NPY in accepted:
        out = io.BytesIO()
        np.save(out, scores, allow_pickle=False)
        return out.getvalue(), NPY
    if not accepted or any(kind in (JSON, "*/*", "application/*") for kind in accepted):
        answer = {
            "model_version": model_version,
            "scores": scores[:, 0].tolist(),
            "features_only_scores": scores[:, 1].tolist(),
        }
        return json.dumps(answer).encode(), JSON
    raise RequestError("not_acceptable", 406, [("Accept", f"expected {JSON} or {NPY}, found {accept[:100]!r}")])


def _from_npy(body: bytes) -> NDArray[Any]:
    try:
        stream = io.BytesIO(body)
        rows: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, SyntaxError, OverflowError) as error:
        raise RequestError("malformed_body", 400, [("body", f"no npy array: {error}")]) from error
    if stream.read(1):
        raise RequestError("malformed_body", 400, [("body", "bytes after the array")])
    if rows.dtype.kind != "f":
        raise RequestError("invalid_request", 422, [("rows", f"expected floats, found {rows.dtype}")])
    return rows


def _checked(rows: NDArray[Any]) -> NDArray[np.float32]:
    mistakes = []
    if rows.ndim != 2 or rows.shape[1] != ROW_WIDTH:
        mistakes.append(("rows", f"expected shape (n, {ROW_WIDTH}), found {rows.shape}"))
    if rows.ndim and len(rows) > MOST_ROWS:
        mistakes.append(("rows", f"expected at most {MOST_ROWS} rows, found {len(rows)}"))
    if np.isinf(rows).any():
        mistakes.append(("rows", "infinite values; use null or NaN for what does not exist"))
    if mistakes:
        raise RequestError("invalid_request", 422, mistakes)
    return np.ascontiguousarray(rows, np.float32)


def _from_json(body: bytes) -> NDArray[np.float32]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError("malformed_body", 400, [("body", f"no JSON: {error}")]) from error
    if not isinstance(request, dict):
        raise RequestError("invalid_request", 422, [("body", f"expected an object, found {type(request).__name__}")])
    mistakes: list[tuple[str, str]] = []
    if request.get("spec") != SPEC_VERSION:
        mistakes.append(("spec", f"expected {SPEC_VERSION}, found {str(request.get('spec'))[:40]}"))
    mistakes += [(str(key)[:80], "unknown field") for key in request if key not in ("spec", "rows")]
    rows = request.get("rows")
    if not isinstance(rows, list):
        mistakes.append(("rows", "expected a list of lists"))
        rows = []
    if len(rows) > MOST_ROWS:
        mistakes.append(("rows", f"expected at most {MOST_ROWS} rows, found {len(rows)}"))
        rows = []
    for i, row in enumerate(rows):
        if len(mistakes) >= MOST_MISTAKES:
            break
        if not isinstance(row, list) or len(row) != ROW_WIDTH:
            found = len(row) if isinstance(row, list) else type(row).__name__
            mistakes.append((f"rows[{i}]", f"expected {ROW_WIDTH} numbers, found {found}"))
            continue
        mistakes += [
            (f"rows[{i}][{j}]", f"{ROW_NAMES[j]}: expected a number or null, found {str(value)[:40]!r}")
            for j, value in enumerate(row)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 3e38)
        ]
    if mistakes:
        raise RequestError("invalid_request", 422, mistakes[:MOST_MISTAKES])
    return np.array(rows, np.float32).reshape(len(rows), ROW_WIDTH)


class Application:
    """The endpoint as an ASGI application, with nothing between the socket and the trees."""

    def __init__(self, model: ServingModel, name: str) -> None:
        self._model = model
        self._scoring_paths = ("/invocations", f"/endpoints/{name}/invocations")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        try:
            status, body, kind = await self._answer(scope, receive)
        except RequestError as error:
            mistakes = [{"field": field, "message": text} for field, text in error.mistakes]
            status, kind = error.status, JSON
            body = json.dumps({"error": {"code": error.code, "mistakes": mistakes}}).encode()
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-model-version", self._model.model_version.encode()),
            (b"x-amzn-invoked-production-variant", b"AllTraffic"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Message, receive: Receive) -> tuple[int, bytes, str]:
        path, method = scope["path"], scope["method"]
        if path not in ("/ping", "/spec", *self._scoring_paths):
            raise RequestError("not_found", 404, [("path", f"expected /ping, /spec or /invocations, found {path[:100]!r}")])
        wanted = "POST" if path in self._scoring_paths else "GET"
        if method != wanted:
            raise RequestError("method_not_allowed", 405, [("method", f"expected {wanted}, found {method}")])
        if path == "/ping":
            return 200, json.dumps({"status": "ok", "model_version": self._model.model_version}).encode(), JSON
        if path == "/spec":
            spec = {"spec": SPEC_VERSION, "row_names": ROW_NAMES, "most_rows": MOST_ROWS}
            return 200, json.dumps(spec).encode(), JSON
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        rows = input_fn(await _body(receive), headers.get("content-type", ""))
        body, kind = output_fn(predict_fn(rows, self._model), headers.get("accept", ""), self._model.model_version)
        return 200, body, kind


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > MOST_BODY_BYTES:
            raise RequestError("too_large", 413, [("body", f"expected at most {MOST_BODY_BYTES} bytes")])
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def load(model: Path, sha256: str | None) -> ServingModel:
    """A package file, checked against its hash, or a folder that SageMaker has unpacked.

    Raises PackageError where it cannot be trusted or read.
    """
    return model_fn(str(model)) if model.is_dir() else serving_model(model.read_bytes(), sha256)


def main(arguments: list[str] | None = None) -> None:
    """Serve a model until stopped: python -m ml.inference --model model.tar.gz --sha256 ... --port 8080 --name
    tidemark.
    """
    import uvicorn

    parser = argparse.ArgumentParser(description="Score wallets' transactions over HTTP.")
    parser.add_argument("--model", type=Path, required=True, help="model.tar.gz or the folder it was unpacked to")
    parser.add_argument("--sha256", help="refuse a package with another hash")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--name", default="tidemark", help="endpoint name in /endpoints/<name>/invocations")
    options = parser.parse_args(arguments)
    application = Application(load(options.model, options.sha256), options.name)
    gc.collect()
    gc.freeze()  # the model and the libraries stay: a collection that walks them would hold a request up for a tenth of a second
    uvicorn.run(application, host=options.host, port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
