"""The report as one HTML page that needs nothing else: figures inside, no script, every text from outside escaped."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping
from urllib.parse import urlsplit

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from infra.report import wording
from infra.report.model import Report, utc_text

_LINK_SCHEMES = frozenset({"http", "https"})  # a javascript: link from outside must stay text
_CAPTIONS = {
    "detection": "AUROC by maturity: model, features alone and forest, with the paired difference",
    "throughput": "Events per second by stage",
    "latency": "Latency of a score",
    "scores": "Distribution of scores by label",
    "alerts": "Alerts over time by label",
}


def environment(package: str = __package__) -> Environment:
    """What renders a package's templates: everything escaped, nothing undefined, the style `page.css.j2` and our filters at hand."""
    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader(__package__, ".")]),
    )
    made.filters.update(
        {
            "visible": wording.visible,
            "count": wording.count,
            "rate": wording.rate,
            "ratio": wording.ratio,
            "seconds": wording.seconds,
            "ms": wording.milliseconds,
            "mib": wording.mib,
            "share": wording.share,
            "figure": wording.figure,
            "interval": wording.interval,
            "utc": utc_text,
        }
    )
    return made


def render(report: Report, figures: Mapping[str, bytes]) -> str:
    """The page. `figures` are PNG by name, as `plots.draw` gives them."""
    page = environment().get_template("report.html.j2")
    return page.render(
        report=report,
        wording=wording,
        figures={name: {"uri": _data_uri(png), "caption": _CAPTIONS.get(name, name)} for name, png in figures.items()},
        links=[(wording.visible(name, 80), wording.visible(target, 2000), is_link(target)) for name, target in report.links.items()],
        is_link=is_link,
        show_command=lambda case_id: "tidemark alerts show " + shlex.quote(wording.visible(case_id)),
    )


def is_link(target: str) -> bool:
    """Whether a target may be clicked: a plain web address; anything else is shown as text."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return False
    return parts.scheme in _LINK_SCHEMES and bool(parts.netloc) and target == wording.visible(target, 2000) and " " not in target


def _data_uri(png: bytes) -> Markup:
    # Base64 holds no character that HTML could misread.
    return Markup("data:image/png;base64," + base64.b64encode(png).decode())
