"""What each task of the DAG does with what its command says. Airflow itself, which has another environment, is stood in for here."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from infra.airflow.environment import DAG, DAGS


class Skip(Exception):
    """Stands for `AirflowSkipException`."""


class Fail(Exception):
    """Stands for `AirflowFailException`."""


class Node:
    """A task, and what it gives."""

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        return Node()

    def __rshift__(self, other: Any) -> Any:
        return other

    __rrshift__ = __rshift__


Tasks = dict[str, Callable[..., Any]]


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> tuple[Tasks, dict[str, tuple[int, Any]], list[list[str]]]:
    """The functions of the tasks by name; what commands answer, by their first words; and the commands that were run."""
    found: Tasks = {}
    answers: dict[str, tuple[int, Any]] = {}
    ran: list[list[str]] = []

    def task(function: Any = None, **options: Any) -> Any:
        if function is None:
            return task
        found[function.__name__] = function
        return Node()

    sdk = SimpleNamespace(
        Param=lambda *a, **k: None, Variable=SimpleNamespace(get=lambda name, default=None: default), dag=lambda **k: lambda f: f, task=task
    )
    deadline = SimpleNamespace(AsyncCallback=None, DeadlineAlert=None, DeadlineReference=None)
    for name, members in {
        "airflow": SimpleNamespace(), "airflow.exceptions": SimpleNamespace(AirflowSkipException=Skip, AirflowFailException=Fail),
        "airflow.sdk": sdk, "airflow.sdk.definitions": SimpleNamespace(), "airflow.sdk.definitions.deadline": deadline,
    }.items():  # fmt: skip
        module = ModuleType(name)
        module.__dict__.update(vars(members))
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location(DAG, DAGS / f"{DAG}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)

    def run(command: list[str], **options: Any) -> Any:
        ran.append(command[1:-1])
        assert command[-1] == "--json"
        status, document = next(answer for words, answer in answers.items() if " ".join(command[1:]).startswith(words))
        return SimpleNamespace(returncode=status, stdout=json.dumps(document) if document is not None else "")

    monkeypatch.setattr(loaded.subprocess, "run", run)
    return found, answers, ran


def test_files_are_ingested_waited_for_and_put_away_once(tasks: Any, tmp_path: Path) -> None:
    functions, answers, ran = tasks
    for name in ("a.csv", "b.parquet", "notes.txt"):
        (tmp_path / name).write_text(name)
    answers |= {"ingest": (0, {"commands": 3, "token": "commands:0:3@x"}), "wait": (0, {})}
    taken = functions["ingest"](params={"inbox": str(tmp_path)})
    assert [Path(name).name for name, *_ in taken] == ["a.csv", "b.parquet"]
    assert [command[0] for command in ran] == ["ingest", "wait", "ingest", "wait"] and "archive" in ran[1]
    (tmp_path / "b.parquet").write_text("another content")
    folder = tmp_path / "processed" / "2026-11-28"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("of an earlier run")
    functions["archive_processed"](taken, ds="2026-11-28")
    assert (folder / "a.csv").read_text() == "of an earlier run" and (folder / "1-a.csv").read_text() == "a.csv"
    assert (tmp_path / "b.parquet").exists(), "it has changed since: the next run reads it"
    assert functions["archive_processed"](taken, ds="2026-11-28") == [], "a second try finds them moved"
    with pytest.raises(Skip):
        functions["ingest"](params={"inbox": ""})


def test_a_refused_file_stays_and_is_tried_again(tasks: Any, tmp_path: Path) -> None:
    functions, answers, _ = tasks
    (tmp_path / "a.csv").write_text("x")
    answers["ingest"] = (1, None)
    with pytest.raises(RuntimeError, match="status 1"):
        functions["ingest"](params={"inbox": str(tmp_path)})
    answers["ingest"] = (2, None)
    with pytest.raises(Fail, match="a setting is wrong"):
        functions["ingest"](params={"inbox": str(tmp_path)})
    assert (tmp_path / "a.csv").exists()


def test_a_broken_expectation_ends_the_run_unless_it_is_told_to_warn(tasks: Any) -> None:
    functions, answers, _ = tasks
    broken = {"success": False, "docs": "pages", "suites": [{"suite": "fact_transaction", "success": False, "failed": ["too few rows"]}]}
    answers["quality"] = (1, broken)
    with pytest.raises(Fail, match="1 expectations are broken"):
        functions["expectations"](params={"expectations": "fail"})
    assert functions["expectations"](params={"expectations": "warn"}) == {"success": False, "docs": "pages"}
    answers["quality"] = (1, {"error": "away"})
    with pytest.raises(RuntimeError, match="could not be held"):
        functions["expectations"](params={"expectations": "warn"})


def test_the_gate_stops_what_lacks_too_much(tasks: Any) -> None:
    functions, answers, _ = tasks
    figures = {"model_version": "lr-1", "average_precision": 0.4, "auroc": 0.6}
    answers["spark train --gate-only"] = (
        6, {"model_version": "lr-2", "has_passed": False, "tolerance": 0.01, "challenger": figures, "champion": figures},
    )  # fmt: skip
    trained = functions["train"](params={"share": 0.2, "tolerance": 0.01})
    with pytest.raises(Skip, match="held back"):
        functions["gate"](functions["evaluate"](trained))
    assert functions["gate"](functions["evaluate"]({**trained, "has_passed": True, "champion": None})) == "lr-2"


def test_nothing_scores_where_no_model_is_there_and_a_promoted_one_must(tasks: Any) -> None:
    functions, answers, _ = tasks
    answers["spark up"] = (5, None)
    with pytest.raises(Skip):
        functions["start_streaming"](None)
    with pytest.raises(RuntimeError, match="status 5"):
        functions["start_streaming"]("lr-2")
    answers |= {
        "spark up": (0, {"model_version": "lr-2"}),
        "spark wait": (0, {"scored": 3, "alerts": 1, "told": 1}),
        "spark promote": (0, {}),
    }
    assert functions["promote"]("lr-2") == "lr-2" and functions["start_streaming"]("lr-2") == "lr-2"
    assert functions["trigger_alerts"]("lr-2")["told"] == 1
    answers["spark wait"] = (5, {"scored": 3, "alerts": 1, "told": 0})
    with pytest.raises(RuntimeError):
        functions["trigger_alerts"]("lr-2")
