"""What the report says is what its figures say."""

from __future__ import annotations

import pytest

from infra.report import wording
from infra.report.model import Detection, Interval, Maturity, Report
from tests.unit.infra.report import samples


def judged(**by_name: tuple[float, float, float]) -> Report:
    """A report whose maturities have a paired difference (point, low, high)."""
    found = {
        name.removeprefix("k"): Maturity(n=10, n_positive=2, auroc=0.9, paired_difference=Interval(point=p, low=low, high=high))
        for name, (p, low, high) in by_name.items()
    }
    return samples.empty().model_copy(update={"detection": Detection(by_maturity=found)})


def embedded(*gains: float, difference: Interval | None = None) -> Report:
    """A report whose model gains so much over its features alone."""
    found = {
        name: Maturity(n=10, n_positive=2, auroc=0.9 + gain, features_only_auroc=0.9, embedding_difference=difference)
        for name, gain in zip(("1", "3"), gains, strict=True)
    }
    return samples.empty().model_copy(update={"detection": Detection(by_maturity=found)})


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.001, 0.02, "beaten"), (-0.02, -0.001, "behind"), (-0.01, 0.01, "undecided"), (0.0, 0.01, "undecided")],
)
def test_the_forest_is_beaten_only_where_the_interval_is_above_0(low, high, verdict):
    difference = Interval(point=(low + high) / 2, low=low, high=high)
    assert wording.forest_verdict(Maturity(n=1, n_positive=1, paired_difference=difference)) == verdict


def test_without_an_interval_the_forest_was_not_compared():
    assert wording.forest_verdict(Maturity(n=0, n_positive=0)) == "not compared"
    assert wording.on_the_forest(samples.empty()) == "The forest was not compared."


def test_the_goal_is_met_only_when_every_maturity_holds():
    above, level = (0.02, 0.01, 0.03), (0.001, -0.01, 0.02)
    assert "is met" in wording.on_the_forest(judged(k1=above, k3=above, k5=above, k10=level, kall=level))
    assert "is not met" in wording.on_the_forest(judged(k1=above, k3=level, k5=above, k10=level, kall=level))
    assert "is not met" in wording.on_the_forest(judged(k1=above, k3=above, k5=above, k10=(-0.001, -0.01, 0.01), kall=level))
    assert "is not met" in wording.on_the_forest(judged(k1=above)), "four maturities are missing"


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ((0.01, 0.02), "The embeddings help over"),
        ((-0.01, 0.0), "do not help"),
        ((0.01, -0.01), "help at some maturities and hurt at others"),
        ((0.0, 0.0001), "change nothing"),
    ],
)
def test_what_the_embeddings_add_is_said_as_it_is(gains, said):
    sentence = wording.on_the_embeddings(embedded(*gains))
    assert said in sentence
    assert "may be chance" in sentence


def test_a_gain_whose_interval_holds_0_is_called_chance():
    assert "Every interval holds 0" in wording.on_the_embeddings(
        embedded(0.01, 0.01, difference=Interval(point=0.01, low=-0.01, high=0.03))
    )
    assert "chance" not in wording.on_the_embeddings(embedded(0.01, 0.01, difference=Interval(point=0.01, low=0.005, high=0.03)))


def test_what_was_not_measured_is_said_so():
    assert wording.on_the_embeddings(samples.empty()) == "What the embeddings add over the features alone was not measured."
    for write in (
        wording.count,
        wording.rate,
        wording.ratio,
        wording.seconds,
        wording.milliseconds,
        wording.mib,
        wording.share,
        wording.figure,
    ):
        assert write(None) == "–"
    assert wording.interval(None) == "–"


def test_the_headline_names_the_store_that_differs():
    assert wording.headline(samples.full()) == "Verified: every store equals the log"
    assert wording.headline(samples.empty()) == "Not verified: no store was read back"
    assert wording.headline(samples.red()) == "Not verified: graph differs from the log"


def test_a_missed_latency_target_is_said_so():
    latency = samples.full().latency_ms
    assert latency is not None
    assert ": met." in wording.on_latency(latency)
    assert ": not met." in wording.on_latency(latency.model_copy(update={"p99": 151.0}))


def test_a_latency_taken_beside_every_worker_is_said_so():
    latency = samples.full().latency_ms
    assert latency is not None
    assert "ran beside" not in wording.on_latency(latency)
    assert "Every other worker ran beside" in wording.on_latency(latency.model_copy(update={"is_apart": False}))


def test_control_characters_are_written_out_and_long_text_is_cut():
    assert wording.visible("a\x1b[2J\nb\u202e") == "a\\x1b[2J\\nb\\u202e"
    assert len(wording.visible("x" * 10_000_000)) == wording.TEXT_LIMIT
    assert len(wording.visible("\x00" * 10_000_000)) == wording.TEXT_LIMIT
