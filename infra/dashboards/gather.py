"""Gathers the page's figures: the warehouse's by SQL in one snapshot, the log's and the workers' by the ways of `tidemark status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from domain.errors import TidemarkError
from infra.dashboards import queries as sql
from infra.dashboards.model import (
    AlertedWallet,
    Alerts,
    AtRisk,
    Dashboard,
    Figures,
    Funnel,
    Log,
    Step,
    TopicPosition,
    Visits,
    Volume,
    Window,
    Worker,
    begin_of,
)
from projections.warehouse.reading import Select, reading
from schema_registry.contracts import SCORE_EVENTS

if TYPE_CHECKING:
    from infra.composition import Composition
    from infra.stack import Stack

SCORE_BINS = 20
LAST_SCORES = 200_000  # half a second on Postgres; the distribution of more looks the same
SHOWN_WALLETS = 20
MOST_BARS = 62
_STEPS: tuple[tuple[Step, timedelta], ...] = (
    ("hour", timedelta(hours=1)),
    ("day", timedelta(days=1)),
    ("week", timedelta(days=7)),
    ("month", timedelta(days=30)),
    ("quarter", timedelta(days=91)),
)
# Each stage with the states of cases that have reached it; a verdict may come without the case being opened first.
_REACHED = {"taken_up": ("open", "decided", "closed"), "decided": ("decided", "closed"), "closed": ("closed",)}


def gather(stack: Stack, composition: Composition, days: int | None) -> Dashboard:
    """The page's figures as they are now.

    Args:
        days: how many days up to the newest transaction; none for all there is.

    Raises:
        NotReady: the warehouse holds nothing yet, not even tables.
        StoreUnavailable: the warehouse does not answer.
        ProjectionError: it refuses.
    """
    from infra.composition import NotReady

    if composition.schemas("warehouse").live() is None:
        raise NotReady("there is no warehouse yet: `tidemark up --workers` starts the worker that fills it")
    with reading(composition.redshift or composition.warehouse_dsn) as select:
        figures = figures_of(select, days)
    return Dashboard(datetime.now(UTC), composition.settings.stack, figures, log_of(stack, composition))


def figures_of(select: Select, days: int | None) -> Figures:
    """Everything that the warehouse says; errors as `gather`."""
    ((generation,),) = select(sql.GENERATION)
    ((newest,),) = select(sql.NEWEST)
    position = tuple(TopicPosition(*row) for row in select(sql.POSITION))
    ((first, last),) = select(sql.SPAN)
    window = window_of(first, last, days)
    if window is None:
        return Figures(int(generation), None, None, newest, position)
    since = {"since": window.since}
    steps = {**since, "step": window.step}
    fresh_from = max(select(sql.REFRESHED)[0][0] or window.since, window.since)
    score_partitions = next((one.partitions for one in position if one.topic == SCORE_EVENTS), 1)
    volume = tuple(
        Volume(at, network, asset, n, settled, Decimal(amount))
        for at, network, asset, n, settled, amount in select(sql.VOLUME, {**steps, "fresh_from": fresh_from})
    )
    return Figures(
        int(generation), window, fresh_from, newest, position, volume,
        scores=_scores(select(sql.SCORES, {"bins": SCORE_BINS, "per_partition": LAST_SCORES // score_partitions})),
        alerts=tuple(Alerts(*row) for row in select(sql.ALERTS, steps)),
        funnel=_funnel(select(sql.FUNNEL, since)),
        visits=Visits(*(int(n) for n in select(sql.VISITS, since)[0])),
        at_risk=tuple(AtRisk(asset, int(n), Decimal(amount), Decimal(of)) for asset, n, amount, of in select(sql.AT_RISK, since)),
        wallets=tuple(AlertedWallet(*row) for row in select(sql.WALLETS, {**since, "shown": SHOWN_WALLETS})),
        stale=int(select(sql.STALE, {**since, "fresh_from": fresh_from})[0][0]),
    )  # fmt: skip


def window_of(first: datetime | None, last: datetime | None, days: int | None) -> Window | None:
    """The window up to the end of the last hour, in whole steps: `MOST_BARS` or one more at most, of years as many as it takes."""
    if first is None or last is None:
        return None
    until = last + timedelta(hours=1)
    since = first if days is None else max(first, until - timedelta(days=days))
    step: Step = next((name for name, length in _STEPS if (until - since) / length <= MOST_BARS), "year")
    return Window(begin_of(since, step), until, step, since == first)


def log_of(stack: Stack, composition: Composition) -> Log:
    """How far the workers are, and what lies in quarantine; where the log does not answer, that is said."""
    from infra.status import StatusReader

    try:
        report = StatusReader(stack).report(composition.settings)
        workers = tuple(
            Worker(w.name, w.state, w.lag, w.lag_s, w.records_per_s, w.quarantined, w.problem or w.last_error) for w in report.workers
        )
        down = sorted(server.name for server in report.servers if server.name in ("kafka", "registry") and not server.is_ready)
        if down:
            return Log(workers, None, f"{' and '.join(down)} down: `tidemark up` starts the local servers")
        reasons = Counter(entry.reason for entry in composition.log.quarantine().values())
        return Log(workers, dict(reasons.most_common()))
    except TidemarkError as error:
        return Log(problem=str(error))


def _scores(rows: Iterable[tuple[Any, ...]]) -> tuple[int, ...]:
    found = {int(bin_): int(n) for bin_, n in rows}
    return tuple(found.get(i, 0) for i in range(SCORE_BINS)) if found else ()


def _funnel(rows: Iterable[tuple[Any, ...]]) -> Funnel:
    by_status: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    for status, verdict, n in rows:
        by_status[status] += int(n)
        if verdict:
            verdicts[verdict] += int(n)
    reached = {stage: sum(by_status[status] for status in states) for stage, states in _REACHED.items()}
    return Funnel(by_status.total(), **reached, verdicts=dict(verdicts.most_common()))
