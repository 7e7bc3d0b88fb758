"""The demo's report: figures of its steps, verification, alerts with links, saved as JSON, HTML and plots, and printed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domain.errors import TidemarkError
from domain.policy import DEFAULT
from graph.browser import browser_link, guide_link, render_guide
from graph.browser.guide import GuideAlert
from infra.composition import NotReady
from infra.dashboards import gather, write
from infra.dashboards.browser import show
from infra.judging import scores
from infra.report import Report, save
from infra.report.model import (
    Accounting,
    Alert,
    AlertBudget,
    AlertLabel,
    Cut,
    Data,
    Detection,
    Latency,
    Maturity,
    ScoreHistogram,
    Stage,
    TransactionFigures,
    Verification,
    histogram,
)
from infra.report.table import print_report
from infra.stack.guides import guides_folder

if TYPE_CHECKING:
    from infra.demo import Demo

SHOWN_ALERTS = 200  # in the report; the command line lists all


def make_report(demo: Demo) -> Report:
    """Gather, save and print the report of a demo whose steps are done, and the dashboard beside it, which a desktop shows."""
    folder = demo.stack.state.folder / "report"
    dashboard = _dashboard(demo, folder / "dashboard.html")
    report = _gathered(demo, dashboard)
    page = save(report, folder)
    print_report(report, demo.console)
    demo.console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    if dashboard is not None:
        demo.console.print(f"Dashboard: {dashboard}", highlight=False, soft_wrap=True)
        if demo.console.is_terminal:
            show(dashboard)
    return report


def _dashboard(demo: Demo, file: Path) -> Path | None:
    """The page; a demo that is done is not lost where it cannot be made."""
    try:
        return write(gather(demo.stack, demo.composition, days=None), file)
    except (TidemarkError, NotReady, OSError) as error:
        demo.console.print(f"No dashboard: {error}. `tidemark dashboard` makes one.", style="yellow", highlight=False, markup=False)
        return None


def _gathered(demo: Demo, dashboard: Path | None) -> Report:
    steps, plan = demo.steps, demo.plan
    settings = demo.composition.settings
    label_by_wallet: Mapping[str, str] = {**plan.training, **plan.judged} if plan.labels_are_of == "wallets" else {}
    alerts = tuple(_alert(case, label_by_wallet, settings.neo4j.browser_url or "") for case in reversed(demo.composition.log.cases()))
    guide_alerts = [
        GuideAlert(c["case_id"], c["wallet_id"], c["reason"], c["score"], c["threshold"], c["status"], c["explanation"])
        for c in sorted(demo.composition.log.cases(), key=lambda case: -case["score"])[:12]
    ]
    render_guide(guide_alerts, guides_folder(demo.stack.state))
    links = {"report": str(demo.stack.state.folder / "report" / "report.html")}
    if dashboard is not None:
        links["dashboard"] = str(dashboard)
    top = max(alerts, key=lambda alert: alert.score, default=None)
    if top is not None and top.link is not None:
        links["Neo4j Browser on the top alert"] = top.link
        links["  then"] = "click Connect (the login: `tidemark investigate --login --show-password`), then Run"
    links["guide in Neo4j Browser"] = guide_link(settings.neo4j.browser_url or "", f"{settings.neo4j.guides_url}/guide.html")
    if plan.has_labels:
        links["endpoint"] = f"{settings.endpoint.url}/endpoints/{settings.endpoint.name}/invocations"
    if steps.is_done("quality"):
        links["data docs"] = f"{steps.result('quality')['docs']}/index.html"
    judged = steps.result("judge") if steps.is_done("judge") else None
    return Report(
        made_at=datetime.now(UTC),
        seed=demo.options.seed,
        data=Data(
            source=plan.files.data.name, rows=plan.last - plan.first, is_simulated=plan.files.is_simulated,
            labels=f"{len(plan.training):,} known at the cut, {len(plan.judged):,} kept for judging" if plan.has_labels else None,
        ),
        cut=Cut(row=plan.cut, at=plan.cut_at),
        stages=_stages(demo),
        latency_ms=_latency(steps.result("latency")) if steps.is_done("latency") else None,
        detection=_detection(judged) if judged is not None else None,
        fresh_embedding_share=judged["fresh_embedding_share"] if judged is not None else None,
        scores=_histogram(demo, label_by_wallet) if judged is not None else None,
        alerts=alerts[:SHOWN_ALERTS],
        alert_budget=AlertBudget.of(DEFAULT.alerts.budget, alerts) if judged is not None else None,
        accounting=_accounting(demo),
        verify=_verification(steps.result("verify")),
        lag={proof["store"]: proof["lag_records"] for proof in steps.result("verify")["stores"]},
        memory_mib=demo.memory,
        steps=steps.seconds(),
        model=_facts(steps.result("train")["card"]) if steps.is_done("train") else {},
        links=links,
    )  # fmt: skip


def _alert(case: dict[str, Any], label_by_wallet: Mapping[str, str], browser_url: str) -> Alert:
    known: dict[str, AlertLabel] = {"illicit": "illicit", "licit": "licit"}
    return Alert(
        case_id=case["case_id"], wallet_id=case["wallet_id"], reason=case["reason"], score=case["score"], explanation=case["explanation"],
        tx_id=case["tx_id"], label=known.get(label_by_wallet.get(case["wallet_id"], ""), "unlabelled"), known_at=case["known_at"],
        link=browser_link(browser_url, "alert", {"case_id": case["case_id"]}),
    )  # fmt: skip


def _stages(demo: Demo) -> tuple[Stage, ...]:
    steps = demo.steps
    bare = steps.result("baselines") if steps.is_done("baselines") else {}
    ingest = steps.result("ingest")
    found = [Stage.measured("commands to events", ingest["commands"], ingest["until_recorded_s"], bare.get("produce_per_s"))]
    for name in ("archive", "warehouse", "graph"):
        result = steps.result(name)
        baseline = bare.get("consume_per_s") if name == "archive" else None
        found.append(Stage.measured(f"log to {name}", result["events"], result["seconds"], baseline))
    if steps.is_done("stream"):
        stream = steps.result("stream")
        found.append(Stage.measured("scored, streaming", stream["commands"], stream["until_scored_s"]))
    return tuple(found)


def _latency(result: dict[str, Any]) -> Latency:
    return Latency(
        p50=result["p50"],
        p95=result["p95"],
        p99=result["p99"],
        n=result["n"],
        offered_per_s=result["offered_per_s"],
        offered=result["offered"],
        is_apart=result.get("is_apart", True),
    )


def _detection(judged: dict[str, Any]) -> Detection:
    transactions = judged["transactions"]
    return Detection(
        by_maturity={k: Maturity.model_validate(figures) for k, figures in judged["by_maturity"].items()},
        transactions=TransactionFigures.model_validate(transactions) if transactions is not None else None,
        forest_note=judged.get("forest"),
    )


def _histogram(demo: Demo, label_by_wallet: Mapping[str, str]) -> ScoreHistogram:
    scored = scores(demo.composition)
    values: dict[AlertLabel, Any] = {"illicit": [], "licit": [], "unlabelled": []}
    judged = demo.plan.judged if demo.plan.labels_are_of == "wallets" else {}
    for side in ("source", "target"):
        columns = zip(scored[f"{side}_wallet_id"].to_pylist(), scored[f"{side}_score"].to_pylist(), strict=True)
        for wallet_id, score in columns:
            if score is not None:
                label = judged.get(wallet_id)
                values["illicit" if label == "illicit" else "licit" if label == "licit" else "unlabelled"].append(score)
    return histogram(values, unit="transactions")


def _accounting(demo: Demo) -> Accounting:
    steps = demo.steps
    proof = next(store for store in steps.result("verify")["stores"] if store["store"] == "log")
    done = [name for name in ("ingest", "stream", "latency") if steps.is_done(name)]
    return accounted(
        {steps.runs(name)[-1]: steps.result(name) for name in done},
        [run for name in done for run in steps.runs(name)[:-1]],
        demo.composition.log.transactions_by_run(),
        proof["records"],
        proof["excluded"],
    )


def accounted(
    ended: Mapping[str, Mapping[str, Any]],
    interrupted: Sequence[str],
    sent_by_run: Mapping[str, int],
    commands: int,
    outcomes: Mapping[str, int],
) -> Accounting:
    """Set what was read beside what became of it.

    Args:
        ended: run → its `rows_read` and `refused` (by reason), for attempts that ended.
        interrupted: runs of attempts that did not.
        sent_by_run: run → its transactions in the command topic.
        commands: records in the command topic.
        outcomes: what the handler says became of them.
    """
    reasons: Counter[str] = Counter()
    for result in ended.values():
        reasons.update(result["refused"])
    ours = sum(sent_by_run.get(run, 0) for run in ended)
    again = sum(sent_by_run.get(run, 0) for run in interrupted)
    return Accounting(
        read=sum(int(result["rows_read"]) for result in ended.values()),
        read_again=again,
        elsewhere=commands - outcomes["decided"] - ours - again,
        recorded=outcomes["recorded"], held=outcomes["held"], refused=outcomes["refused"], duplicates=outcomes["duplicates"],
        quarantined=outcomes["quarantined"] + reasons.total(), reasons=dict(sorted(reasons.items())),
    )  # fmt: skip


def _verification(result: dict[str, Any]) -> Verification:
    return Verification.model_validate_json(json.dumps({"ok": result["ok"], "stores": result["stores"]}))


def _facts(card: dict[str, Any]) -> dict[str, str | int | float | bool | None]:
    plain = (str, int, float, bool, type(None))
    return {name: value for name, value in card.items() if isinstance(value, plain)}
