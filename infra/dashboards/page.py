"""The dashboard as one HTML page that needs nothing else: charts inside as SVG, no script, every text from outside escaped."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

from markupsafe import Markup

from infra.dashboards import charts
from infra.dashboards.model import Dashboard, Figures, Worker
from infra.report.files import put
from infra.report.html import environment
from infra.report.wording import NOT_MEASURED, count, visible

VERDICTS = {"fraud": "fraud", "not_fraud": "not fraud", "inconclusive": "inconclusive"}
_SMALL = Decimal("0.01")
_HUGE = Decimal(10) ** 15


def render(page: Dashboard) -> str:
    """The page."""
    made = environment(__package__)
    made.filters["amount"], made.filters["bar"], made.filters["words"] = amount, bar, charts.words
    figures = page.figures
    return made.get_template("dashboard.html.j2").render(
        page=page,
        figures=figures,
        window=figures.window,
        charts=charts.draw(page),
        headline=headline(page),
        totals=charts.asset_totals(figures.volume),
        shown_assets=charts.assets(figures.volume),
        unsettled=_unsettled(figures),
        funnel=_funnel(figures),
        visits=_visits(figures),
        worst=_worst(page.log.workers),
        verdicts=VERDICTS,
        freshness=freshness(page),
        show_command=lambda case_id: "tidemark alerts show " + shlex.quote(visible(case_id)),
    )


def write(page: Dashboard, file: Path) -> Path:
    """Write the page, whole or not at all; folders that are missing are made.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    put(file, render(page).encode())
    return file


def headline(page: Dashboard) -> str:
    """Up to when the page is true: the first thing to know."""
    newest = page.figures.newest_ingested_at
    if newest is None:
        return "The warehouse holds no transaction yet"
    return f"True up to {newest:%Y-%m-%d %H:%M:%S} UTC"


def freshness(page: Dashboard) -> tuple[str, str]:
    """(good, bad or neutral; a sentence): how far the warehouse stands behind the log."""
    worker = page.log.warehouse
    if worker is None or worker.lag is None:
        why = page.log.problem or (worker.problem if worker is not None else None) or "its worker was never started here"
        return "neutral", f"How far the warehouse stands behind the log is not known: {visible(why)}."
    if page.figures.stale:
        found = f"{count(abs(page.figures.stale))} {'came late' if page.figures.stale > 0 else 'were taken back'}"
        return (
            "bad",
            f"The volumes below are older than the facts: {found} since. `tidemark dashboard --refresh` counts anew.",
        )
    if not worker.lag:
        return "good", "The warehouse holds all that the log held when this was read."
    age = "" if worker.lag_s is None else f"; the oldest record that is missing has waited {worker.lag_s:,.1f} s"
    return "bad", f"The warehouse stands {count(worker.lag)} offsets behind the log{age}."


def amount(value: Decimal | None) -> str:
    """An amount for people: two places, more for tiny ones, a power of ten for huge ones. The exact one stands in the JSON."""
    if value is None:
        return NOT_MEASURED
    size = abs(value)
    if size >= _HUGE:
        return f"{value:.3e}".replace("e+", " × 10^")
    return f"{value:,.2f}" if size >= _SMALL or not size else f"{value:.3g}"


def bar(share: float | Decimal | None) -> Markup:
    """A horizontal bar of this share, none of nothing."""
    width = 0.0 if share is None else min(100.0, max(0.0, float(share) * 100))
    return Markup('<span class="bar" aria-hidden="true"><i style="width:{:.1f}%"></i></span>').format(width)


def _unsettled(figures: Figures) -> list[tuple[str, int, int]]:
    """(network, transactions, how many of them did not settle), those with most transactions first."""
    found: dict[str, tuple[int, int]] = {}
    for one in figures.volume:
        n, missing = found.get(one.network, (0, 0))
        found[one.network] = (n + one.transactions, missing + one.transactions - one.settled)
    return [(name, *found[name]) for name in sorted(found, key=lambda name: (-found[name][0], name))]


def _funnel(figures: Figures) -> list[tuple[str, int, float]]:
    """(stage, cases that reached it, their share of all alerts)."""
    found = figures.funnel
    stages = (("Alerted", found.alerted), ("Taken up", found.taken_up), ("Decided", found.decided), ("Closed", found.closed))
    return [(name, n, n / found.alerted if found.alerted else 0.0) for name, n in stages]


def _visits(figures: Figures) -> list[tuple[str, int, float]]:
    """(step, visits that reached it, their share of all visits); empty where there is no shop."""
    found = figures.visits
    steps = (
        ("Visits", found.visits), ("Viewed a product", found.viewed_product), ("Filled the basket", found.filled_basket),
        ("Went to pay", found.went_to_pay), ("Tried to pay", found.tried_to_pay), ("Ordered", found.ordered),
    )  # fmt: skip
    return [(name, n, n / found.visits) for name, n in steps] if found.visits else []


def _worst(workers: Iterable[Worker]) -> Worker | None:
    """The worker that stands farthest behind."""
    return max((worker for worker in workers if worker.lag is not None), key=lambda worker: worker.lag or 0, default=None)
