"""The report of a replay in a real Chromium: it asks nobody, says nothing on the console, shows hostile names as text, fits small screens.

`python -m tests.e2e.test_replay_page PAGE PNG` makes the picture of the docs from a page that `tidemark replay` wrote.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from domain.values import EPOCH
from infra.replay.outcome import Truth, Variant
from infra.replay.prices import PriceBook, Priced
from infra.replay.report import write
from infra.replay.run import Latencies, ReplayResult
from infra.replay.strategy import PaperTrader, load_strategy
from infra.rule_alerts import rule_rows
from tests.e2e.test_browser_link import CHROMIUM
from tests.e2e.test_dashboard import WIDTHS, brightness, opened
from tests.unit.infra.replay.test_outcome import HOUR, ROWS, START, policy

HOSTILE = "<script>document.title='owned'</script>\"><img src=x onerror=alert(1)>"
LABELS = Truth({"e:bad": True, "e:good": False, "e:good2": False}, {})

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH: install it (Debian: apt-get install chromium) to run this test"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants of a few transactions, one of a hostile name, and a strategy that threw."""
    folder = tmp_path_factory.mktemp("replay")
    prices = PriceBook("USD", [Priced(START + n * HOUR, "ETH", n + 2) for n in range(6)])  # type: ignore[arg-type]
    variants = [Variant(title, policy(), None, LABELS, prices, HOUR // 2, START, START + 9 * HOUR) for title in ("standard@1", HOSTILE)]
    for variant in variants:
        variant.take(ROWS, variant.ruled(list(rule_rows(ROWS))), None)
    throws = f"        if price > 4:\n            raise ValueError({HOSTILE!r})\n"
    method = "    def on_price(self, asset, price, book):\n        book.buy('ETH', 1)\n"
    (folder / "s.py").write_text(f"class Strategy:\n    name = {HOSTILE!r}\n{method}{throws}")
    trader = PaperTrader(load_strategy(folder / "s.py"), prices, START - 1, START + 9 * HOUR)
    trader.advance(START + 9 * HOUR)
    latencies = Latencies()
    latencies.add(np.arange(0, 4_000, 10), np.linspace(5, 40, 400))
    start = EPOCH + timedelta(microseconds=START)
    result = ReplayResult(
        "r-0123456789ab", {"from_seq": 0, "until_seq": 9, "scale": 2, "react_s": 1800.0, "quote": "USD", "trained_to": {HOSTILE: 5}}
    )
    result.outcome = {
        "transactions": 9, "injected": 3, "schemes": 1, "taken_back": 1, "start": start.isoformat(),
        "end": (start + timedelta(hours=9)).isoformat(), "variants": [one.as_json() for one in variants],
        "strategies": [trader.outcome().as_json()],
    }  # fmt: skip
    result.measured = {
        "seconds": 4.0, "transactions_per_s": 2.2, "offered_per_s": 2.3, "waiting": 2, "speed": 8_100.0, "latency": latencies.as_json(),
    }  # fmt: skip
    assert result.failed
    return write(result, folder / "report")


def test_it_asks_nobody_and_shows_hostile_names_as_text(page: Path) -> None:
    with opened(page) as (shown, said):
        assert said == []
        assert shown.title() == "Tidemark replay r-0123456789ab"
        assert shown.locator("td", has_text="<script>document.title='owned'</script>").count() >= 3
        assert shown.locator("script, img").count() == 0
        assert shown.locator("svg[role=img]").count() == 5, "alerts of both, value, strategies, latency"
        assert shown.locator(".pill.bad", has_text="threw").count() == 1


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_over_the_edge(page: Path, width: int, scheme: str) -> None:
    with opened(page, width, scheme) as (shown, said):
        assert shown.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        ground = shown.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor")
        assert (brightness(ground) < 0.3) == (scheme == "dark")
        assert said == []


if __name__ == "__main__":
    with opened(Path(sys.argv[1])) as (shown, _):
        shown.screenshot(path=sys.argv[2], full_page=True)
