"""The report's model: its JSON reads back equal and lets nothing through by accident."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from infra.report.model import (
    LABELS,
    AlertBudget,
    Percentiles,
    ReportUnreadable,
    Stage,
    StoreProof,
    from_json,
    histogram,
    latency_bins,
    to_json,
)
from projections.coverage import Covered
from projections.verify import Proof
from tests.unit.infra.report import samples


@pytest.mark.parametrize(
    "report",
    [samples.full(), samples.empty(), samples.red(), samples.hostile()],
    ids=["full", "empty", "red", "hostile"],
)
def test_a_report_reads_back_equal_and_is_written_the_same_again(report):
    text = to_json(report)
    assert from_json(text) == report
    assert to_json(from_json(text)) == text


def test_the_json_has_the_keys_that_scripts_rely_on():
    found = json.loads(to_json(samples.full()))
    assert {
        "stages",
        "latency_ms",
        "detection",
        "fresh_embedding_share",
        "verify",
        "memory_mib",
        "links",
    } <= found.keys()
    assert set(found["stages"][0]) == {"name", "events", "seconds", "events_per_s", "baseline_per_s", "ratio"}
    assert list(found["detection"]["by_maturity"]) == ["1", "3", "5", "10", "all"]
    assert {"point", "low", "high"} == found["detection"]["by_maturity"]["1"]["paired_difference"].keys()
    assert {"ok", "stores"} == found["verify"].keys()
    assert {"total", "by_process"} <= found["memory_mib"].keys()


def test_a_proof_of_the_verifier_fits():
    covered = [Covered("transaction-events", 0, 0, 5, 5, 3, markers=1, aborted=1)]
    proof = Proof("graph", False, records=3, applied=3, rows={"sent": 2}, problems=["one row is missing"], offsets=covered)
    assert StoreProof.model_validate_json(json.dumps(proof.as_json())).problems == ("one row is missing",)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"surprise": 1}, "surprise"),
        ({"seed": "7"}, "seed"),
        ({"format": 2}, "format"),
        ({"verify": {"ok": "yes", "stores": []}}, "verify.ok"),
        ({"made_at": "2026-03-04T05:06:07"}, "made_at"),
    ],
    ids=["unknown name", "text for a number", "another format", "text for a truth value", "a time without zone"],
)
def test_a_wrong_field_is_refused_and_named(change, named):
    with pytest.raises(ReportUnreadable, match=named):
        from_json(json.dumps({**json.loads(to_json(samples.empty())), **change}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"], ids=["empty", "cut short", "list", "null", "control"])
def test_text_that_is_no_report_is_refused(text):
    with pytest.raises(ReportUnreadable, match="no report of format 1"):
        from_json(text)


def test_nan_is_no_figure():
    with pytest.raises(ValidationError, match="finite"):
        Percentiles(p50=float("nan"), p95=1.0, p99=2.0)


def test_a_stage_without_time_has_no_rate_and_one_without_baseline_no_ratio():
    assert Stage.measured("a", 10, 0.0).events_per_s is None
    assert Stage.measured("b", 10, 2.0).ratio is None
    assert Stage.measured("c", 10, 2.0, 20.0).ratio == 0.25


def test_precision_counts_labelled_alerts_only():
    alerts = samples.full().alerts[:10]
    budget = AlertBudget.of(
        0.01,
        [alert.model_copy(update={"label": label}) for alert, label in zip(alerts[:3], LABELS, strict=True)],
    )
    assert (budget.n_alerts, budget.n_labelled, budget.n_illicit, budget.precision) == (3, 2, 1, 0.5)
    assert AlertBudget.of(0.01, []).precision is None


def test_rows_that_are_not_accounted_for_make_a_report_red():
    report = samples.full()
    assert report.is_green
    assert report.accounting is not None
    lost = report.accounting.model_copy(update={"read": report.accounting.read + 1})
    assert not report.model_copy(update={"accounting": lost}).is_green


def test_a_proof_of_no_store_and_one_that_contradicts_itself_are_red():
    assert not samples.empty().is_green
    report = samples.red()
    assert not report.model_copy(update={"verify": report.verify.model_copy(update={"ok": True})}).is_green


def test_histograms_lose_no_value():
    found = histogram({"illicit": [0.0, 0.5, 1.0], "licit": []}, n_bins=10)
    assert sum(found.counts["illicit"]) == 3
    assert found.counts["illicit"][9] == 1
    assert len(found.edges) == 11
    bins = latency_bins([1.0, 2.0, 3.0, 500.0])
    assert sum(found.n for found in bins) == 4
    assert bins[-1].to_ms > 500.0
    assert latency_bins([]) == ()
    assert sum(found.n for found in latency_bins([0.0, 0.0])) == 2
