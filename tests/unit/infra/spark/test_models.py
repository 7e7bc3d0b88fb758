"""The gate of Spark's regression: what is promoted, what is held back, what is refused. The job is one that writes given scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto import mock_aws

from infra.composition import NotReady
from infra.settings import load_settings
from infra.spark.models import ALERT_SHARE, promote, promoted, serving, train
from infra.spark.run import SparkJobFailed
from tests.unit.infra.aws.double import client

GOOD, BAD = [0.1, 0.2, 0.8, 0.9], [0.9, 0.2, 0.8, 0.1]


class Runner:
    """Stands for `SparkRunner`: each training gives the next version, whose scores of four transactions are given."""

    def __init__(self, composition: Any, folder: Any) -> None:
        self.composition, self.folder = composition, folder
        self.specs: list[dict[str, Any]] = []
        self.scores: dict[str, Sequence[float]] = {}

    def spec(self, *read: str, fields: Any = None) -> dict[str, Any]:
        return {}

    def run(self, job: str, spec: dict[str, Any], told: Any) -> dict[str, Any]:
        self.specs.append(spec)
        columns: dict[str, Any] = {"label": [0.0, 0.0, 1.0, 1.0], **{name: list(values) for name, values in self.scores.items()}}
        pq.write_table(pa.table(columns), spec["judged"])
        version = f"lr-{len(self.specs):012x}"
        return {"model_version": version, "trained_on": 8, "fraud": 4, "judged_on": 4, "pipeline": f"{spec['models']}/{version}/pipeline-1"}


@pytest.fixture
def runner(tmp_path: Any) -> Iterator[Runner]:
    with mock_aws():
        s3 = client("s3")
        s3.create_bucket(Bucket="tidemark")
        log = SimpleNamespace(next_seq=lambda topic: 100)
        composition = SimpleNamespace(settings=load_settings(state_dir=tmp_path), clients=SimpleNamespace(s3=s3), log=log)
        yield Runner(composition, tmp_path)


def trained(runner: Runner, challenger: Sequence[float], champion: Sequence[float] | None = None, **options: Any) -> Any:
    runner.scores = {"challenger": challenger, **({"champion": champion} if champion is not None else {})}
    return train(runner, 0.25, 0.01, lambda text: None, **options)  # type: ignore[arg-type]


def test_the_first_model_is_promoted_and_a_worse_one_is_held_back(runner: Runner) -> None:
    with pytest.raises(NotReady, match="spark train"):
        serving(runner.composition)
    first = trained(runner, GOOD)
    assert first.has_passed and first.champion is None and (first.cut_seq, first.end_seq) == (75, 100)
    assert first.challenger.average_precision == 1.0
    card, folder = serving(runner.composition)
    assert card["model_version"] == first.model_version and folder.endswith("pipeline-1")
    assert card["threshold"] == pytest.approx(0.9, abs=ALERT_SHARE), "about one in a hundred is an alert"
    second = trained(runner, BAD, champion=GOOD)
    assert runner.specs[1]["champion"] == folder, "both are judged on the same transactions"
    assert not second.has_passed and second.champion.average_precision == 1.0
    assert second.champion_knew, "the first was trained on what it is judged on here"
    assert serving(runner.composition)[0]["model_version"] == first.model_version
    assert not list(runner.folder.glob("judged*")), "nothing is left behind"


def test_one_that_was_only_judged_can_be_promoted_later_and_an_earlier_one_again(runner: Runner) -> None:
    first = trained(runner, GOOD)
    second = trained(runner, GOOD, champion=GOOD, promotes=False)
    assert second.has_passed and promoted(runner.composition)["model_version"] == first.model_version  # type: ignore[index]
    promote(runner.composition, second.model_version)
    assert serving(runner.composition)[0]["model_version"] == second.model_version
    assert serving(runner.composition, first.model_version)[0]["model_version"] == first.model_version
    promote(runner.composition, first.model_version)
    assert serving(runner.composition)[0]["model_version"] == first.model_version
    for none in ("lr-000000000009", "../promoted", ""):
        with pytest.raises(NotReady, match="was saved here"):
            promote(runner.composition, none)


def test_a_model_that_says_no_number_is_no_champion_for_ever(runner: Runner) -> None:
    with pytest.raises(SparkJobFailed, match="no number"):
        trained(runner, [0.1, float("nan"), 0.8, 0.9])
    assert promoted(runner.composition) is None and not list(runner.folder.glob("judged*"))


def test_a_model_of_other_features_neither_scores_nor_is_held_against(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(runner, GOOD)
    monkeypatch.setattr("infra.spark.models.FEATURES", "another")
    with pytest.raises(NotReady, match="other features"):
        serving(runner.composition)
    with pytest.raises(NotReady, match="other features"):
        promote(runner.composition, first.model_version)
    assert trained(runner, BAD).champion is None
