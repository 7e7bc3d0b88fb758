"""The guide that Neo4j Browser plays: a slide an alert, each with queries that run at a click, and the style beside
it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Final

from graph.browser.links import query_text
from graph.investigation import HUB_DEGREE

GUIDE_FILE: Final = "guide.html"
STYLE_FILE: Final = "style.grass"
MAX_ALERTS: Final = 20  # slides that a person pages through


@dataclass(frozen=True, slots=True)
class GuideAlert:
    """What a slide says of an alert; `score` and `threshold` in [0, 1]."""

    case_id: str
    wallet_id: str
    reason: str
    score: float
    threshold: float
    status: str
    explanation: str


def render_guide(alerts: Sequence[GuideAlert], folder: Path) -> Path:
    """Write the guide of these alerts, the first ones first, and the style; each replaces what is there in one step.

    Returns:
        The guide's path.

    Raises:
        InvalidParameter: an alert's id breaks its rule.
    """
    folder.mkdir(parents=True, exist_ok=True)
    slides = [_overview(alerts), *(_slide(alert) for alert in alerts[:MAX_ALERTS]), _legend()]
    body = "\n".join(slides)
    page = f'<article class="guide">\n<carousel class="deck container-fluid">\n{body}\n</carousel>\n</article>\n'
    _replace(folder / STYLE_FILE, files("graph.browser").joinpath(STYLE_FILE).read_text("utf-8"))
    return _replace(folder / GUIDE_FILE, page)


def _overview(alerts: Sequence[GuideAlert]) -> str:
    rows = "".join(
        f"<tr><td>{alert.score:.3f}</td><td><code>{escape(alert.wallet_id)}</code></td><td>{escape(alert.status)}</td></tr>"
        for alert in alerts[:MAX_ALERTS]
    )
    table = f"<table><tr><th>Score</th><th>Wallet</th><th>Status</th></tr>{rows}</table>" if rows else "<p>None yet.</p>"
    return _page(
        "Alerts",
        f"{len(alerts)} alerts, the strongest first. Page on with the arrows; a click on a query puts it into the editor.",
        table + _runnable("All of them", "alerts", {}),
    )


def _slide(alert: GuideAlert) -> str:
    wallet, case = {"wallet_id": alert.wallet_id}, {"case_id": alert.case_id}
    queries = [
        ("See it: the alert, its wallet and the largest flows around it", "alert", case),
        ("Which transactions", "transactions", case),
        ("Who it deals with", "counterparties", wallet),
        ("How far its value could have gone", "reach", wallet),
        ("Wallets that behave alike", "similar", wallet),
    ]
    lead = f"Score {alert.score:.3f}, threshold {alert.threshold:.3f}. {alert.explanation}"
    return _page(
        f"{alert.reason} · {alert.case_id}",
        lead,
        f"<p><code>{escape(alert.wallet_id)}</code></p>" + "".join(_runnable(*query) for query in queries),
    )


def _legend() -> str:
    meanings = {
        "red": "known to be illicit",
        "orange, or an orange rim": "has an alert",
        "amber": "its last score is 0.5 or more",
        "blue": "frozen",
        "violet": "an exchange",
        "green": "known to be licit",
        "grey": "nothing known",
    }
    rows = "".join(f"<tr><td>{escape(colour)}</td><td>{escape(what)}</td></tr>" for colour, what in meanings.items())
    text = f"An arrow is the sum of one asset between two wallets. Walks go through no wallet of {HUB_DEGREE} transactions or more."
    return _page("How to read the drawing", text, f"<table><tr><th>Circle</th><th>Wallet</th></tr>{rows}</table>")


def _page(title: str, lead: str, body: str) -> str:
    return (
        f'<slide class="row-fluid"><div class="col-sm-3"><h3>{escape(title)}</h3>'
        f'<p class="lead">{escape(lead)}</p></div><div class="col-sm-9">{body}</div></slide>'
    )


def _runnable(title: str, name: str, params: dict[str, str]) -> str:
    text = escape(query_text(name, params))
    return (
        f"<p>{escape(title)}</p>"
        '<figure><pre mode="cypher" class="highlight pre-scrollable programlisting code runnable">'
        f"{text}</pre></figure>"
    )


def _replace(path: Path, text: str) -> Path:
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)
    return path
