"""The printed links in a real Chromium: connect, run, and the alert's neighbourhood is drawn; the guide plays its
slides.

`python -m tests.e2e.test_browser_link LINK PASSWORD PNG` makes the picture of the docs from a running stack.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import neo4j
import pytest

from graph.browser import GuideAlert, browser_link, guide_link, render_guide
from graph.investigation import run_query
from infra.stack import Stack
from infra.stack.guides import guides_folder
from projections.wallet_graph import WalletGraphProjection
from tests.integration.projections.wallet_graph_log import SmallLog, apply_all

TIMEOUT_MS = 60_000
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def opened(link: str, password: str) -> Iterator[object]:
    """The page behind a link, connected, the style read."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
    with playwright.sync_playwright() as runner:
        browser = runner.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900}, device_scale_factor=1.5)
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(link, wait_until="domcontentloaded")
        page.fill("input[type=password]", password)
        page.click("[data-testid=connect]")
        page.wait_for_selector("[data-testid=connect]", state="detached")
        yield page
        browser.close()


def draw(link: str, password: str, picture: Path) -> tuple[int, int]:
    """Open an `edit` link, connect, run, save what is drawn; returns how many circles and arrows stand there."""
    with opened(link, password) as page:
        # The style is fetched after the connection; a person who clicks sooner sees the colours a moment later.
        page.wait_for_selector("[data-testid=exportGraSSButton]", state="attached")
        page.click("[data-testid=editor-Run]")
        page.wait_for_selector("svg g.node")
        frame = page.locator("[data-testid=frame]", has=page.locator("[data-testid=cypherFrameSidebarVisualization]")).first
        frame.get_by_title("Fullscreen").first.click()
        # The layout of the circles comes to rest.
        page.wait_for_function(
            """() => { const at = JSON.stringify([...document.querySelectorAll('svg g.node')].map(
                 n => n.getAttribute('transform')));
               const still = at === window.tidemarkLast; window.tidemarkLast = at; return still; }""",
            polling=700,
        )
        fit = page.locator("[aria-label='zoom-to-fit'], [data-testid='zoom-to-fit'], button[title*='fit' i]")
        if fit.count():
            fit.first.click()
            page.wait_for_timeout(1200)
        page.screenshot(path=picture)
        return page.locator("svg g.node").count(), page.locator("svg g.relationship").count()


pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH: install it (Debian: apt-get install chromium) to run this test"
)


@pytest.fixture(scope="module")
def alerted(stack: Stack) -> tuple[Stack, str]:
    """A stack with Neo4j and guides whose graph holds one alert on a wallet of a fan-in; the Browser's address."""
    stack.up(["guides", "neo4j"], is_tethered=True)
    settings = stack.settings().neo4j
    log = SmallLog()
    for i in range(8):
        tx_id = log.send(f"test:0x{i:038x}aa", "test:0xfeed000000000000000000000000000000beef", f"{i + 1}.5")
        log.send(f"test:0x{i:038x}bb", f"test:0x{i:038x}aa", "20")
    log.alert("case1", "test:0xfeed000000000000000000000000000000beef", tx_id, "<b>fan in</b> of 8 wallets")
    log.score(tx_id, 14, "test:0x00000000000000000000000000000000000007aa", "test:0xfeed000000000000000000000000000000beef")
    auth = (settings.user, settings.password.get_secret_value())
    with neo4j.GraphDatabase.driver(settings.uri, auth=auth) as driver:
        with driver.session(database=settings.database) as session:
            session.run("MATCH ()-[r]->() CALL (r) { DELETE r } IN TRANSACTIONS").consume()
            session.run("MATCH (n) CALL (n) { DELETE n } IN TRANSACTIONS").consume()
        sink = WalletGraphProjection(driver, settings.database)
        sink.prepare()
        apply_all(sink, log)
        found = run_query(driver, settings.database, "alerts", {})
    render_guide(
        [
            GuideAlert(row["case_id"], row["wallet_id"], row["reason"], row["score"], 0.8, row["status"], row["explanation"])
            for row in found
        ],
        guides_folder(stack.state),
    )
    return stack, settings.browser_url


def test_the_link_of_an_alert_opens_connects_and_draws(alerted: tuple[Stack, str], tmp_path: Path) -> None:
    stack, browser_url = alerted
    picture = tmp_path / "alert.png"
    link = browser_link(browser_url, "alert", {"case_id": "case1"})
    nodes, relationships = draw(link, stack.settings().neo4j.password.get_secret_value(), picture)
    # The alert, its wallet, eight that paid it, and the eight that paid those.
    assert nodes == 18
    assert relationships >= 17
    assert picture.stat().st_size > 20_000


def test_the_link_of_the_guide_plays_its_slides(alerted: tuple[Stack, str]) -> None:
    stack, browser_url = alerted
    settings = stack.settings().neo4j
    link = guide_link(browser_url, f"{settings.guides_url}/guide.html")
    with opened(link, settings.password.get_secret_value()) as page:
        page.wait_for_selector("text=1 alerts, the strongest first")
        assert page.locator("pre.runnable").count() >= 1
        assert page.locator("b", has_text="fan in").count() == 0


if __name__ == "__main__":
    print(draw(sys.argv[1], sys.argv[2], Path(sys.argv[-1])))
