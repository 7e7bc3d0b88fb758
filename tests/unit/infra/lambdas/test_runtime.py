"""A function runs under AWS's own client: cold, warm, failing, dying, too slow; and its zip brings all that it needs."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.lambdas import package
from infra.lambdas.card_alerts import CARD_ALERTS
from infra.lambdas.functions import FUNCTIONS, Function
from infra.lambdas.kinesis_ingestion import INGESTION
from infra.lambdas.runtime import FunctionError, FunctionHost

CODE = """
import os, sys, time
CALLS = []
def handler(event, context):
    CALLS.append(1)
    act = event.get("act")
    if act == "raise":
        raise ValueError("a bad event")
    if act == "die":
        os._exit(3)
    if act == "sleep":
        time.sleep(60)
    return {"calls": len(CALLS), "event": event, "name": context.function_name, "left": context.get_remaining_time_in_millis(),
            "path": sys.path, "home": os.environ.get("HOME"), "given": os.environ.get("GIVEN")}
"""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package.runtime(tmp_path_factory.mktemp("runtime"))


@pytest.fixture
def host(runtime: Path, tmp_path: Path) -> Iterator[FunctionHost]:
    (tmp_path / "app.py").write_text(CODE)
    with FunctionHost("f", tmp_path, runtime, "app.handler", {"GIVEN": "yes"}, timeout_s=5.0) as found:
        yield found


def test_the_first_call_is_cold_and_the_next_is_warm(host: FunctionHost) -> None:
    first, second = host.invoke({"n": "ä" * 100_000}), host.invoke({})
    assert first.init_ms is not None and second.init_ms is None
    assert (first.answer["calls"], second.answer["calls"]) == (1, 2)
    assert first.answer["event"] == {"n": "ä" * 100_000}
    assert first.answer["name"] == "f" and 0 < first.answer["left"] <= 5_000 and first.answer["given"] == "yes"
    assert second.memory_mb > 10


def test_the_caller_s_packages_are_not_there(host: FunctionHost) -> None:
    paths = host.invoke({}).answer["path"]
    assert not [path for path in paths if "site-packages" in path]


def test_an_error_is_told_and_leaves_the_environment_warm(host: FunctionHost) -> None:
    with pytest.raises(FunctionError, match="ValueError: a bad event"):
        host.invoke({"act": "raise"})
    assert host.invoke({}).answer["calls"] == 2


def test_a_death_is_told_and_the_next_call_is_cold(host: FunctionHost) -> None:
    host.invoke({})
    with pytest.raises(FunctionError, match=r"Runtime\.ExitError: the process ended with status 3"):
        host.invoke({"act": "die"})
    again = host.invoke({})
    assert again.init_ms is not None and again.answer["calls"] == 1


def test_too_slow_is_told_and_the_next_call_is_cold(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(CODE)
    with FunctionHost("f", tmp_path, runtime, "app.handler", {}, timeout_s=2.0) as host:
        host.invoke({})
        with pytest.raises(FunctionError, match=r"Sandbox\.Timedout: no answer in 2\.00 seconds"):
            host.invoke({"act": "sleep"})
        assert host.invoke({}).init_ms is not None


def test_a_module_that_cannot_be_imported_is_an_error_at_the_start(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import a_module_that_is_nowhere")
    with (
        FunctionHost("f", tmp_path, runtime, "app.handler", {}, timeout_s=20.0) as host,
        pytest.raises(FunctionError, match="a_module_that_is_nowhere"),
    ):
        host.invoke({})


@pytest.mark.parametrize(
    ("name", "app", "own"),
    [(INGESTION, "kinesis_app", {"infra"}), (CARD_ALERTS, "card_alerts_app", {"psycopg", "psycopg_binary"})],
    ids=[INGESTION, CARD_ALERTS],
)
def test_a_zip_is_the_same_bytes_each_time_and_has_no_more_than_it_needs(name: str, app: str, own: set[str], tmp_path: Path) -> None:
    first, second = (package.build(FUNCTIONS[name], tmp_path / folder) for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {"domain", "schema_registry", "projections", "infra", "confluent_kafka", "fastavro", *own} <= tops
    assert "schema_registry/avsc/TransactionRecorded.v1.avsc" in names and f"infra/lambdas/{app}.py" in names
    assert not tops & {"numpy", "pyarrow", "numba", "torch", "boto3", "botocore", "moto", "ml", "graph"}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]


def test_a_zip_that_lambda_would_not_take_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "_UNZIPPED_MOST", 1 << 20)
    with pytest.raises(package.PackageTooLarge, match=r"kinesis-ingestion: .* Lambda takes 1"):
        package.build(FUNCTIONS[INGESTION], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("version", "is_fit"), [((3, 11, 7), False), ((3, 12, 0), True), ((3, 13, 1), True)])
def test_a_python_whose_image_is_too_old_is_named(version: tuple[int, ...], is_fit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package.sys, "version_info", version)
    assert (package.unfit() is None) == is_fit


def test_an_unpacked_zip_is_made_once_for_its_content(tmp_path: Path) -> None:
    function = Function("small", "infra.lambdas.transaction_json", (), 1.0, 128)
    zip_ = package.build(function, tmp_path)
    folder = package.unpacked(zip_, tmp_path)
    assert [item.name for item in tmp_path.iterdir() if item.name.endswith(".part")] == []
    marker = folder / "marker"
    marker.touch()
    assert package.unpacked(zip_, tmp_path) == folder and marker.exists()
