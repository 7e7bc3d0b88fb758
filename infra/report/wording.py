"""The report's sentences and numbers, the same on page and terminal. Text from outside is made visible here."""

from __future__ import annotations

from infra.logs import escape_control
from infra.report.model import MATURITY_NAMES, Alert, Interval, Latency, Maturity, Report, utc_text

NOT_MEASURED = "–"
TEXT_LIMIT = 300  # characters of any text from outside: ids of 10 MB have been seen

P50_TARGET_MS, P99_TARGET_MS = 40.0, 150.0  # issue 3: event appended → score appended at 200 tx/s

SHOWN_ALERTS = 25  # the rest are in report.json

MUST_BEAT = ("1", "3", "5")  # here the interval has to lie above 0; later the point estimate


def visible(text: object, limit: int = TEXT_LIMIT) -> str:
    """Text from outside with its control characters written out, cut to `limit` characters."""
    raw = str(text)
    shown = escape_control(raw[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def count(value: float | None) -> str:
    """A whole number with separators."""
    return NOT_MEASURED if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """A rate per second: three figures are enough."""
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def ratio(value: float | None) -> str:
    """A ratio to two places."""
    return NOT_MEASURED if value is None else f"{value:.2f}"


def seconds(value: float | None) -> str:
    """Seconds, with a tenth where it matters."""
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f} s" if value >= 100 else f"{value:,.1f} s"


def milliseconds(value: float | None) -> str:
    """Milliseconds to a tenth."""
    return NOT_MEASURED if value is None else f"{value:,.1f} ms"


def mib(value: float | None) -> str:
    """MiB, whole."""
    return NOT_MEASURED if value is None else f"{value:,.0f} MiB"


def share(value: float | None) -> str:
    """A share in per cent."""
    return NOT_MEASURED if value is None else f"{value:.1%}"


def figure(value: float | None) -> str:
    """AUROC and its like: three places."""
    return NOT_MEASURED if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """A difference, with its sign always."""
    return NOT_MEASURED if value is None else f"{value:+.3f}".replace("-", "−")


def interval(value: Interval | None) -> str:
    """A difference with its 95 % interval."""
    return NOT_MEASURED if value is None else f"{signed(value.point)} [{signed(value.low)}, {signed(value.high)}]"


def kind_of_data(report: Report) -> str:
    """What every title has to say."""
    return "simulated data" if report.data.is_simulated else "real data"


def headline(report: Report) -> str:
    """Whether the read models can be believed: the first thing to know."""
    if not report.verify.stores:
        return "Not verified: no store was read back"
    if not report.verify.is_proven:
        broken = [visible(proof.store, 60) for proof in report.verify.stores if not proof.ok]
        return f"Not verified: {', '.join(broken) or 'a store'} {'differ' if len(broken) > 1 else 'differs'} from the log"
    if report.accounting is not None and not report.accounting.is_balanced:
        return "Every store equals the log, but not every row that was read is accounted for"
    return "Verified: every store equals the log"


def what_ran(report: Report) -> str:
    """Data, cut and seed in a sentence."""
    data = report.data
    kind = "simulated" if data.is_simulated else "real"
    parts = [f"{data.rows:,} {kind} transactions from {visible(data.source, 120)}"]
    if report.span is not None:
        parts.append(f"{report.span.first_at:%Y-%m-%d} to {report.span.last_at:%Y-%m-%d}")
    if report.cut is not None:
        parts.append(f"cut at row {report.cut.row:,} ({utc_text(report.cut.at)})")
    parts.append(f"labels: {visible(data.labels, 120)}" if data.labels else "no labels, so nothing was learned or judged")
    return "; ".join(parts) + f". Seed {report.seed}."


def maturities(report: Report) -> list[tuple[str, Maturity]]:
    """The maturities that were judged, youngest first."""
    found = report.detection.by_maturity if report.detection is not None else {}
    return [(name, found[name]) for name in MATURITY_NAMES if name in found]


def maturity_name(name: str) -> str:
    """What a maturity means."""
    return "last" if name == "all" else f"k = {name}"


def forest_verdict(maturity: Maturity) -> str:
    """By the interval of the paired difference: beaten, behind, a draw, or not compared."""
    difference = maturity.paired_difference
    if difference is None:
        return "not compared"
    if difference.low > 0:
        return "beaten"
    return "behind" if difference.high < 0 else "undecided"


def on_the_forest(report: Report) -> str:
    """Where the forest is beaten, and whether that is what was asked for."""
    judged = [(name, found) for name, found in maturities(report) if found.paired_difference is not None]
    if not judged:
        note = report.detection.forest_note if report.detection is not None else None
        return "The forest was not compared" + (f": {visible(note)}." if note else ".")
    said = [
        f"{words} at {_listed(names)}"
        for verdict, words in _VERDICT_WORDS.items()
        if (names := [maturity_name(name) for name, found in judged if forest_verdict(found) == verdict])
    ]
    held = all(
        found.paired_difference is not None
        and (found.paired_difference.low > 0 if name in MUST_BEAT else found.paired_difference.point > 0)
        for name, found in judged
    )
    complete = len(judged) == len(MATURITY_NAMES)
    goal = "met" if held and complete else "not met"
    sentence = "The forest is " + "; ".join(said)
    return f"{sentence}. The goal (interval above 0 at 1, 3 and 5, a higher AUROC at 10 and last) is {goal}."


def on_the_embeddings(report: Report) -> str:
    """What the embeddings add over the same features without them: said as it is, gain or loss."""
    pairs = [
        (name, found.auroc - found.features_only_auroc, found.embedding_difference)
        for name, found in maturities(report)
        if found.auroc is not None and found.features_only_auroc is not None
    ]
    if not pairs:
        return "What the embeddings add over the features alone was not measured."
    told = ", ".join(
        f"{signed(gain)} at {maturity_name(name)}" + (f" (interval {signed(known.low)} to {signed(known.high)})" if known else "")
        for name, gain, known in pairs
    )
    gains = [gain for _, gain, _ in pairs]
    if all(abs(gain) < 0.0005 for gain in gains):
        lead = "The embeddings change nothing over the features alone"
    elif min(gains) > -0.0005:
        lead = "The embeddings help over the features alone"
    elif max(gains) < 0.0005:
        lead = "The embeddings do not help: the features alone do as well or better"
    else:
        lead = "The embeddings help at some maturities and hurt at others"
    known = [difference for _, _, difference in pairs if difference is not None]
    if not known:
        caution = " No interval was computed for this difference, so small ones may be chance."
    elif len(known) == len(pairs) and all(difference.low <= 0 <= difference.high for difference in known):
        caution = " Every interval holds 0, so it may be chance."
    else:
        caution = ""
    return f"{lead}: AUROC {told}.{caution}"


def on_latency(latency: Latency) -> str:
    """Latency beside its targets and beside the echo endpoint."""
    is_met = latency.p50 < P50_TARGET_MS and latency.p99 < P99_TARGET_MS
    offered = f" of {latency.offered:,} offered" if latency.offered is not None else ""
    sentence = (
        f"{latency.n:,} scores{offered} at {latency.offered_per_s:,.0f} transactions/s, open loop, "
        "from event append to the score read back committed. "
        f"Target (p50 under {P50_TARGET_MS:.0f} ms, p99 under {P99_TARGET_MS:.0f} ms): "
        f"{'met' if is_met else 'not met'}."
    )
    if not latency.is_apart:
        sentence += " Every other worker ran beside on the same cores; a full demo stops them meanwhile."
    if latency.echo is not None:
        own = latency.p50 - latency.echo.p50
        echo = milliseconds(latency.echo.p50)
        sentence += f" An echo endpoint in the same run takes {echo} at p50; the difference is {milliseconds(own)}."
    return sentence


def on_alerts(report: Report) -> str:
    """How many alerts, within which budget, and how often they were right."""
    budget = report.alert_budget
    if budget is None:
        return f"{len(report.alerts):,} alerts."
    text = f"{budget.n_alerts:,} alerts; the budget is {budget.share:.2%} of transactions"
    text += f", the threshold a score of {budget.threshold:.3f}" if budget.threshold is not None else ""
    if budget.n_labelled:
        rest = f" {budget.n_alerts - budget.n_labelled:,} are on wallets without a label."
        known = f"Of the {budget.n_labelled:,} with a known label {budget.n_illicit:,} are illicit"
        return f"{text}. {known}: precision {share(budget.precision)}.{rest}"
    return f"{text}. None is on a wallet with a known label, so precision is unknown."


def top_alerts(report: Report) -> list[Alert]:
    """The alerts that are shown: the highest scores first."""
    return sorted(report.alerts, key=lambda alert: (-alert.score, alert.case_id))[:SHOWN_ALERTS]


_VERDICT_WORDS = {
    "beaten": "beaten (interval above 0)",
    "undecided": "neither beaten nor ahead",
    "behind": "ahead of the model",
}


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
