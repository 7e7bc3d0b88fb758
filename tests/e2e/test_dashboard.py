"""The dashboard of a small filled warehouse in a real Chromium: it asks nobody, says nothing on the console, shows hostile names as text.

`python -m tests.e2e.test_dashboard PAGE PNG` makes the picture of the docs from a page that `tidemark dashboard` or the demo wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from domain.events import AlertRaised, AlertReason
from domain.log import NewRecord
from infra.dashboards import gather, write
from schema_registry.contracts import CASE_EVENTS, COMMANDS
from schema_registry.record_codec import RecordCodec
from tests.e2e.test_browser_link import CHROMIUM, FLAGS, TIMEOUT_MS
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers
from tests.unit.projections.warehouse.events import START, transaction

HOSTILE = "ethereum:<script>document.title='owned'</script>\"><img src=x onerror=alert(1)>"
WIDTHS = (1280, 400)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH: install it (Debian: apt-get install chromium) to run this test"
)


@contextmanager
def opened(file: Path, width: int = 1280, scheme: str = "light") -> Iterator[tuple[Any, list[str]]]:
    """A page on disk, and what it has said on its console or asked of anybody beside itself."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
    said: list[str] = []
    with playwright.sync_playwright() as runner:
        browser = runner.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 900}, device_scale_factor=1.5, color_scheme=scheme)
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", lambda message: said.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        address = file.absolute().as_uri()
        page.on("request", lambda request: request.url in (address, "data:,") or said.append(f"request: {request.url[:200]}"))
        page.goto(address, wait_until="load")
        yield page, said
        browser.close()


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres"]) as found:
        yield found


@pytest.fixture(scope="module")
def page(log: OwnLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated transactions, and one of a wallet whose name is markup, which was alerted."""
    log.simulate(2_000, 11)
    codec = RecordCodec(log.composition.clients.catalog)
    bad = replace(transaction(1), tx_id="ethereum:bad:0", source_wallet_id=HOSTILE, amount=Decimal("1234.5"), asset="<b>ETH</b>")
    bad = replace(bad, occurred_at=START + timedelta(days=365 * 6))
    log.composition.producer.append([NewRecord(COMMANDS, HOSTILE.encode(), codec.encode_event(bad))])
    log.drive("command-handler")
    alert = AlertRaised("c0ffee", HOSTILE, AlertReason.SCORE, 0.97, 0.5, bad.tx_id, 2_000, "<i>why</i>", "m1", bad.occurred_at)
    log.composition.producer.append([NewRecord(CASE_EVENTS, b"c0ffee", codec.encode_event(alert))])
    log.drive("warehouse")
    return write(gather(log.stack, log.fresh(), None), tmp_path_factory.mktemp("page") / "dashboard.html")


def test_it_asks_nobody_and_shows_hostile_names_as_text(page: Path) -> None:
    with opened(page) as (shown, said):
        assert said == []
        assert shown.title().startswith("Tidemark dashboard: True up to")
        assert shown.locator(".wallet", has_text="<script>document.title='owned'</script>").count() == 1
        assert shown.locator("section.risk", has_text="<b>ETH</b>").count() == 1
        assert shown.locator("script, img, section b b").count() == 0
        assert shown.locator("svg[role=img]").count() >= 4


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_over_the_edge_and_everything_can_be_read(page: Path, width: int, scheme: str) -> None:
    with opened(page, width, scheme) as (shown, said):
        assert shown.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        colours = shown.evaluate(
            """() => [...document.querySelectorAll('h1, h2, td, p, svg text')].map(e => {
                 const s = getComputedStyle(e); return e.ownerSVGElement ? s.fill : s.color; })"""
        )
        page_colour = shown.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor")
        assert page_colour not in colours, "text of the colour of its ground"
        assert (brightness(page_colour) < 0.3) == (scheme == "dark")
        assert all(abs(brightness(colour) - brightness(page_colour)) > 0.25 for colour in set(colours))
        assert said == []


def brightness(colour: str) -> float:
    """Of `rgb(r, g, b)`, from 0 to 1."""
    red, green, blue = (float(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")[:3])
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def test_every_figure_of_a_chart_stands_in_a_table_too(page: Path) -> None:
    with opened(page) as (shown, _):
        for title in ("Volume", "Failed and declined", "Alerts over time"):
            section = shown.locator("section", has=shown.get_by_role("heading", name=title, exact=True))
            section.locator("details").evaluate("element => { element.open = true; }")
            assert section.locator("details table tbody tr").count() >= 1


if __name__ == "__main__":
    with opened(Path(sys.argv[1])) as (shown, _):
        shown.screenshot(path=sys.argv[2], full_page=True)
