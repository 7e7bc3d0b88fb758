"""What a report holds: the figures of one run as plain frozen values, and their JSON, which reads back equal.

It measures and judges nothing: whoever ran the job fills it in. A figure that could not be measured is None, never 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from domain.errors import TidemarkError

FORMAT: Final = 1
"""Raised by a change that an older reader of report.json could not follow."""

MATURITY_NAMES = ("1", "3", "5", "10", "all")
"""After how many of its transactions a wallet is judged; "all" is its last."""

AlertLabel = Literal["illicit", "licit", "unlabelled"]
LABELS: tuple[AlertLabel, ...] = ("illicit", "licit", "unlabelled")

Fact = str | int | float | bool | None


class ReportUnreadable(TidemarkError):
    """A report.json that is missing, broken or of another format."""


class _Part(BaseModel):
    """Unknown names, wrong types, NaN and infinity are errors: a report must not say something by accident."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Stage(_Part):
    """Events through a stage in wall-clock seconds; the baseline is the bare tool on the same rows, `ratio` ours."""

    name: str
    events: int = Field(ge=0)
    seconds: float = Field(ge=0)
    events_per_s: float | None = None
    baseline_per_s: float | None = None
    ratio: float | None = None

    @classmethod
    def measured(cls, name: str, events: int, seconds: float, baseline_per_s: float | None = None) -> Stage:
        """A stage with its rate, and its ratio where there is a baseline; no rate where no time passed."""
        rate = events / seconds if seconds > 0 else None
        ratio = rate / baseline_per_s if rate is not None and baseline_per_s else None
        return cls(name=name, events=events, seconds=seconds, events_per_s=rate, baseline_per_s=baseline_per_s, ratio=ratio)


class Percentiles(_Part):
    """Milliseconds."""

    p50: float
    p95: float
    p99: float


class LatencyBin(_Part):
    """How many scores took at least `from_ms` and less than `to_ms`."""

    from_ms: float
    to_ms: float
    n: int = Field(ge=0)


class Latency(_Part):
    """Event append to score in a read_committed reader's hands, in milliseconds, open loop at `offered_per_s`.

    `echo` is the same with an endpoint that answers at once. `is_apart`: only the road to the score ran; else every worker
    did, on the same cores.
    """

    p50: float
    p95: float
    p99: float
    n: int
    offered_per_s: float
    offered: int | None = None
    echo: Percentiles | None = None
    is_apart: bool = True
    bins: tuple[LatencyBin, ...] = ()


class Interval(_Part):
    """A difference of AUROC with its 95 % interval."""

    point: float
    low: float
    high: float


class Maturity(_Part):
    """Detection after a wallet's k-th transaction, pooled over judged wallets.

    The forest's figures are of its stronger leaf size. `paired_difference` is model minus forest; `embedding_difference`
    model minus features alone. `*_n_ge_k` leave out wallets that never had k transactions.
    """

    n: int
    n_positive: int
    auroc: float | None = None
    average_precision: float | None = None
    f1: float | None = None
    features_only_auroc: float | None = None
    forest_auroc: float | None = None
    forest_average_precision: float | None = None
    forest_f1: float | None = None
    forest_leaf: int | None = None
    paired_difference: Interval | None = None
    embedding_difference: Interval | None = None
    n_ge_k: int | None = None
    auroc_n_ge_k: float | None = None
    forest_auroc_n_ge_k: float | None = None


class TransactionFigures(_Part):
    """Detection where labels are of transactions."""

    n: int
    n_positive: int
    auroc: float | None = None
    average_precision: float | None = None


class Detection(_Part):
    """`by_maturity` by a name of `MATURITY_NAMES`; `forest_note` says why there is no forest, if so."""

    by_maturity: dict[str, Maturity] = Field(default_factory=dict)
    transactions: TransactionFigures | None = None
    forest_note: str | None = None


class Span(_Part):
    """First and last `occurred_at` of the data."""

    first_at: AwareDatetime
    last_at: AwareDatetime


class Cut(_Part):
    """Rows before `row` were history; labels were known from `at` on."""

    row: int
    at: AwareDatetime


class Data(_Part):
    """Where the transactions came from; `labels` describes their labels, None where there are none."""

    source: str
    rows: int
    is_simulated: bool
    labels: str | None = None


class Alert(_Part):
    """A case that was opened, with the label it turned out to have; `link` opens it in Neo4j Browser."""

    case_id: str
    wallet_id: str
    reason: str
    score: float
    explanation: str
    tx_id: str
    label: AlertLabel = "unlabelled"
    known_at: AwareDatetime | None = None
    link: str | None = None


class AlertBudget(_Part):
    """`share` of transactions that people can look at; `precision` among the labelled alerts, None without any."""

    share: float
    threshold: float | None = None
    n_alerts: int
    n_labelled: int
    n_illicit: int
    precision: float | None = None

    @classmethod
    def of(cls, share: float, alerts: Iterable[Alert], threshold: float | None = None) -> AlertBudget:
        """Count alerts by label."""
        labels = [alert.label for alert in alerts]
        n_illicit = labels.count("illicit")
        n_labelled = n_illicit + labels.count("licit")
        precision = n_illicit / n_labelled if n_labelled else None
        return cls(
            share=share,
            threshold=threshold,
            n_alerts=len(labels),
            n_labelled=n_labelled,
            n_illicit=n_illicit,
            precision=precision,
        )


class Accounting(_Part):
    """What became of each row that was read; `reasons` counts refusals by their stable code.

    `read` is the reader's own count, of attempts that ended. What an interrupted attempt had sent (`read_again`) and what others have
    sent into the same log (`elsewhere`) is counted in the command topic; the right side is what the handler says of all of it.
    """

    read: int
    read_again: int = 0
    elsewhere: int = 0
    recorded: int
    held: int
    refused: int
    duplicates: int
    quarantined: int
    reasons: dict[str, int] = Field(default_factory=dict)

    @property
    def is_balanced(self) -> bool:
        """Whether every row read is accounted for, once."""
        return self.read + self.read_again + self.elsewhere == self.recorded + self.held + self.refused + self.duplicates + self.quarantined


class CoveredRange(_Part):
    """A partition's offsets; the form of `projections.coverage.Covered`."""

    topic: str
    partition: int
    first: int
    until: int
    head: int
    records: int
    markers: int = 0
    aborted: int = 0
    holes: int = 0


class StoreProof(_Part):
    """One store read back against the log; the form of `projections.verify.Proof.as_json()`."""

    store: str
    ok: bool
    records: int = 0
    applied: int | None = None
    rows: dict[str, int] = Field(default_factory=dict)
    excluded: dict[str, int] = Field(default_factory=dict)
    quarantined: int = 0
    lag_records: int = 0
    problems: tuple[str, ...] = ()
    offsets: tuple[CoveredRange, ...] = ()


class Verification(_Part):
    """Whether every store equals the log. A proof of no store proves nothing."""

    ok: bool
    stores: tuple[StoreProof, ...] = ()

    @property
    def is_proven(self) -> bool:
        """Whether stores were read back and each equals the log."""
        return self.ok and bool(self.stores) and all(proof.ok for proof in self.stores)


class Memory(_Part):
    """PSS in MiB: shared pages count in parts, so a sum is what the machine gave. `peak_total`: the largest sampled."""

    total: float
    by_process: dict[str, float] = Field(default_factory=dict)
    peak_total: float | None = None


class ScoreHistogram(_Part):
    """Scores by label: `counts[label][i]` lie in [edges[i], edges[i + 1]), the last closed; `unit`: what was scored."""

    edges: tuple[float, ...]
    counts: dict[AlertLabel, tuple[int, ...]]
    unit: str = "transactions"


class Report(_Part):
    """One run of the main job: `steps` in seconds, `lag` in records by worker, `model` as facts of the model card."""

    format: Literal[1] = 1
    made_at: AwareDatetime
    seed: int
    data: Data
    span: Span | None = None
    cut: Cut | None = None
    stages: tuple[Stage, ...] = ()
    latency_ms: Latency | None = None
    detection: Detection | None = None
    fresh_embedding_share: float | None = None
    scores: ScoreHistogram | None = None
    alerts: tuple[Alert, ...] = ()
    alert_budget: AlertBudget | None = None
    accounting: Accounting | None = None
    verify: Verification
    lag: dict[str, int | None] = Field(default_factory=dict)
    memory_mib: Memory | None = None
    steps: dict[str, float] = Field(default_factory=dict)
    model: dict[str, Fact] = Field(default_factory=dict)
    links: dict[str, str] = Field(default_factory=dict)

    @property
    def is_green(self) -> bool:
        """Whether every store equals the log and, where rows were counted, every row is accounted for."""
        return self.verify.is_proven and (self.accounting is None or self.accounting.is_balanced)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, in the order of the fields."""
        values: dict[str, Any] = self.model_dump(mode="json")
        return values


def to_json(report: Report) -> str:
    """The report's JSON text: the same report always gives the same bytes."""
    return json.dumps(report.as_json(), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def from_json(text: str) -> Report:
    """Read a report back.

    Raises:
        ReportUnreadable: the text is no JSON, or not a report of this format; names each field that is wrong.
    """
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, found['loc'])) or 'text'}: {found['msg']}" for found in error.errors()]
        raise ReportUnreadable("this is no report of format " + f"{FORMAT}: " + "; ".join(wrong[:10])) from error


def histogram(values_by_label: dict[AlertLabel, Iterable[float]], unit: str = "transactions", n_bins: int = 25) -> ScoreHistogram:
    """Count scores in [0, 1] in equal bins, by label."""
    counts: dict[AlertLabel, tuple[int, ...]] = {}
    for label, values in values_by_label.items():
        found = [0] * n_bins
        for value in values:
            found[min(n_bins - 1, max(0, int(value * n_bins)))] += 1
        counts[label] = tuple(found)
    return ScoreHistogram(edges=tuple(i / n_bins for i in range(n_bins + 1)), counts=counts, unit=unit)


def latency_bins(values_ms: Iterable[float], n_bins: int = 40) -> tuple[LatencyBin, ...]:
    """Count latencies in equal bins up to the 99.5th percentile; the last bin takes the slower ones as well."""
    ordered = sorted(values_ms)
    if not ordered:
        return ()
    top = max(ordered[min(len(ordered) - 1, int(len(ordered) * 0.995))], 1e-3)
    width = top / n_bins
    counts = [0] * n_bins
    for value in ordered:
        counts[min(n_bins - 1, max(0, int(value / width)))] += 1
    ends = [*(i * width for i in range(1, n_bins)), max(top, ordered[-1]) + width / 1000]
    return tuple(LatencyBin(from_ms=i * width, to_ms=end, n=n) for i, (end, n) in enumerate(zip(ends, counts, strict=True)))


def utc_text(at: datetime) -> str:
    """A moment for people, to the minute."""
    return f"{at:%Y-%m-%d %H:%M} UTC"
