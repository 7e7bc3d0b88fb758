"""The dashboard stands alone, shows text from outside as text, and says of every part what is not there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from xml.etree import ElementTree

import pytest

from infra.dashboards import charts
from infra.dashboards.model import Dashboard, Log, Volume
from infra.dashboards.page import amount, bar, freshness, headline, render
from tests.unit.infra.dashboards import samples
from tests.unit.infra.report.samples import HOSTILE
from tests.unit.infra.report.test_html import Page


def test_hostile_text_makes_no_element_and_no_handler() -> None:
    raw = render(samples.hostile())
    page = Page(raw)
    assert not {"script", "img", "iframe", "a", "b[bold"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text, "shown, not run"
    assert "{{ 7 * 7 }}" in page.text, "not read as a template"
    assert not [c for c in raw if (ord(c) < 32 and c not in "\n\t") or c in "\x7f\u202e\u2066"]
    assert len(raw) < 500_000, "long ids are cut"


def test_the_page_needs_nothing_from_outside() -> None:
    page = Page(render(samples.full()))
    assert not {"script", "iframe", "object", "image", "use"} & set(page.tags)
    targets = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert targets == ["data:,"], "an icon of nothing, so that no browser asks for one"
    assert "url(" not in render(samples.full()).replace("url(#", "")


def test_every_chart_is_named_described_and_takes_its_colours_from_the_page() -> None:
    drawn = charts.draw(samples.full())
    assert set(drawn) == {"volume", "unsettled", "scores", "alerts", *(f"amount {i}" for i in range(len(samples.PAIRS)))}
    for name, text in drawn.items():
        root = ElementTree.fromstring(text)
        ids = {element.get("id"): element.text for element in root.iter() if element.get("id")}
        assert root.get("role") == "img"
        assert all(ids[one] for one in str(root.get("aria-labelledby")).split()), name
        assert "var(--s1)" in text or "var(--s2)" in text or "var(--s3)" in text
    ids = [value for name, value in Page(render(samples.full())).attributes if name == "id"]
    assert len(ids) == len(set(ids)), "or a description would be another chart's"


def test_an_empty_warehouse_says_so_in_every_section() -> None:
    text = Page(render(samples.empty())).text
    for said in (
        "The warehouse holds no transaction yet", "No transaction has been recorded yet.", "No alert was raised.", "Nothing was scored yet",
        "No wallet with an undecided alert moved anything.", "No worker was started here", "The log could not be asked",
        "Nothing was read from the log yet.",
    ):  # fmt: skip
        assert said in text
    assert charts.draw(samples.empty()) == {} and "From visit to order" not in text, "who has no shop misses none"


def test_the_figures_are_there_formatted() -> None:
    text = " ".join(Page(render(samples.full())).text.split())
    for said in (
        "10,234.12",
        "10.4%",
        "True up to 2026-04-01 05:05:58 UTC",
        "1,203 offsets behind the log",
        "not fraud 14",
        "36.5%",
        "negative amount",
        "Tried to pay11811.8%",
    ):
        assert said in text


def test_amounts_of_different_assets_are_never_added() -> None:
    volume = samples.full().figures.volume
    totals = charts.asset_totals(volume)
    assert set(totals) == {(network, asset) for network, asset, *_ in samples.PAIRS}
    euros = [one.amount for one in volume if (one.network, one.asset) == ("card", "EUR")]
    assert totals["card", "EUR"][2] == sum(euros)


def test_networks_beyond_the_colours_are_shown_together() -> None:
    volume = [Volume(samples.SINCE, f"n{i}", "A", 10 - i, 1, Decimal(1)) for i in range(9)]
    colours = charts.networks(volume)
    assert list(colours) == ["n0", "n1", "n2", "n3", "n4", charts.REST]
    assert charts.per_step(volume, colours, lambda one: one.transactions)[0] == (samples.SINCE, charts.REST, 5 + 4 + 3 + 2)
    page = replace(samples.full(), figures=replace(samples.full().figures, volume=tuple(volume)))
    assert charts.REST in charts.draw(page)["volume"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Decimal("1234567.891"), "1,234,567.89"),
        (Decimal(0), "0.00"),
        (Decimal("0.000000000000000001"), "1e-18"),
        (Decimal("12345678901234567890"), "1.235 × 10^19"),
        (Decimal("-5"), "-5.00"),
        (None, "–"),
    ],
)
def test_an_amount_is_for_people(value: Decimal | None, said: str) -> None:
    assert amount(value) == said


def test_a_bar_stays_within_its_track() -> None:
    assert ["width:0.0%" in bar(None), "width:100.0%" in bar(7.0), "width:12.5%" in bar(Decimal("0.125"))] == [True] * 3


def test_how_far_the_warehouse_is_behind_is_said_or_why_it_is_not_known() -> None:
    page = samples.full()
    assert freshness(page)[0] == "bad"
    caught_up = replace(page, log=Log((replace(page.log.workers[1], lag=0),)))
    assert freshness(caught_up) == ("good", "The warehouse holds all that the log held when this was read.")
    unknown = Dashboard(datetime(2026, 1, 1, tzinfo=UTC), "x", page.figures, Log(problem=f"kafka down {HOSTILE[0]}"))
    assert "kafka down" in freshness(unknown)[1] and freshness(unknown)[0] == "neutral"
    assert headline(samples.empty()) == "The warehouse holds no transaction yet"


def test_volumes_that_are_older_than_the_facts_are_said_first() -> None:
    for stale, said in ((12, "12 came late"), (-1, "1 were taken back")):
        page = samples.full()
        level, sentence = freshness(replace(page, figures=replace(page.figures, stale=stale)))
        assert level == "bad" and said in sentence and "--refresh" in sentence
