"""The endpoint: both forms of request, every mistake listed, and a real server beside boto3's path."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from ml.errors import RequestError
from ml.head import ROW_WIDTH
from ml.inference import JSON, NPY, input_fn, output_fn
from ml.packaging import package
from ml.training import TrainedModel


def npy(rows: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, rows, allow_pickle=rows.dtype == object)
    return out.getvalue()


def test_both_forms_say_the_same() -> None:
    rows = np.full((2, ROW_WIDTH), np.nan, np.float32)
    rows[:, 0] = 1.5
    text = json.dumps({"spec": 1, "rows": [[None if np.isnan(x) else float(x) for x in row] for row in rows]}).encode()
    assert np.array_equal(input_fn(text, "application/json; charset=utf-8"), rows, equal_nan=True)
    assert np.array_equal(input_fn(npy(rows), NPY), rows, equal_nan=True)


@pytest.mark.parametrize(
    ("body", "kind", "code", "status", "field"),
    [
        pytest.param(b"{}", "text/csv", "unsupported_content_type", 415, "Content-Type", id="content type"),
        pytest.param(b"{", JSON, "malformed_body", 400, "body", id="cut JSON"),
        pytest.param(b"[" * 100_000, JSON, "malformed_body", 400, "body", id="deep JSON"),
        pytest.param(b"[]", JSON, "invalid_request", 422, "body", id="no object"),
        pytest.param(b'{"spec": 2, "rows": []}', JSON, "invalid_request", 422, "spec", id="another spec"),
        pytest.param(b'{"spec": 1, "rows": [[1]]}', JSON, "invalid_request", 422, "rows[0]", id="short row"),
        pytest.param(b"\x93NUMPY", NPY, "malformed_body", 400, "body", id="cut npy"),
        pytest.param(npy(np.array([object()])), NPY, "malformed_body", 400, "body", id="pickled objects"),
        pytest.param(npy(np.zeros((1, 3), np.float32)), NPY, "invalid_request", 422, "rows", id="narrow npy"),
        pytest.param(npy(np.zeros((1, ROW_WIDTH), np.int64)), NPY, "invalid_request", 422, "rows", id="integers"),
        pytest.param(npy(np.full((1, ROW_WIDTH), np.inf)), NPY, "invalid_request", 422, "rows", id="infinite"),
    ],
)
def test_mistakes_have_stable_codes(body: bytes, kind: str, code: str, status: int, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        input_fn(body, kind)
    assert (caught.value.code, caught.value.status) == (code, status)
    assert caught.value.mistakes[0][0] == field


def test_all_mistakes_are_listed_together() -> None:
    row: list[object] = [0.0] * ROW_WIDTH
    row[3], row[5] = "x", True
    with pytest.raises(RequestError) as caught:
        input_fn(json.dumps({"spec": 9, "rows": [row], "more": 1}).encode(), JSON)
    assert [field for field, _ in caught.value.mistakes] == ["spec", "more", "rows[0][3]", "rows[0][5]"]


def test_an_answer_form_that_we_lack_is_refused() -> None:
    with pytest.raises(RequestError, match="not_acceptable"):
        output_fn(np.zeros((1, 2)), "text/csv")


@pytest.fixture(scope="module")
def server(model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    packed = package(model)
    path = tmp_path_factory.mktemp("model") / "model.tar.gz"
    path.write_bytes(packed.data)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ml.inference",
            "--model",
            str(path),
            "--sha256",
            packed.sha256,
            "--port",
            str(port),
            "--name",
            "x",
        ],
        cwd=Path(__file__).parents[3],
    )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 90
    while True:
        assert process.poll() is None, "the endpoint ended by itself"
        try:
            httpx.get(f"{url}/ping", timeout=2).raise_for_status()
            break
        except httpx.HTTPError:
            assert time.monotonic() < deadline, "the endpoint did not answer /ping within 90 s"
            time.sleep(0.1)
    yield url
    process.terminate()
    process.wait(20)


def test_the_server_scores_as_the_model_does(server: str, model: TrainedModel) -> None:
    rows = np.random.default_rng(0).normal(size=(30, ROW_WIDTH)).astype(np.float32)
    expected = model.head.scores(rows)
    for path in ("/invocations", "/endpoints/x/invocations"):
        answer = httpx.post(server + path, content=npy(rows), headers={"content-type": NPY}, timeout=30).json()
        assert answer["scores"] == expected[:, 0].tolist()
        assert answer["features_only_scores"] == expected[:, 1].tolist()
        assert answer["model_version"] == package(model).model_version
    answer = httpx.post(server + "/invocations", content=npy(rows), headers={"content-type": NPY, "accept": NPY}, timeout=30)
    assert np.array_equal(np.load(io.BytesIO(answer.content)), expected)


def test_the_server_answers_mistakes_with_4xx(server: str) -> None:
    assert httpx.get(server + "/nothing").status_code == 404
    assert httpx.get(server + "/invocations").status_code == 405
    wrong = httpx.post(server + "/invocations", json={"spec": 1})
    assert wrong.status_code == 422
    assert wrong.json()["error"] == {
        "code": "invalid_request", "mistakes": [{"field": "rows", "message": "expected a list of lists"}]
    }  # fmt: skip
    assert len(httpx.get(server + "/spec").json()["row_names"]) == ROW_WIDTH


def test_the_endpoint_never_imports_torch() -> None:
    code = "import sys, ml.inference; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0
