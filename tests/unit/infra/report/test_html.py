"""The page stands alone and shows text from outside as text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from infra.report.html import is_link, render
from tests.unit.infra.report import samples

FIGURE = {"detection": b"\x89PNG\r\n\x1a\nnot really"}


class Page(HTMLParser):
    """Elements, attributes and text as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data


def test_hostile_text_makes_no_element_no_handler_and_no_link():
    raw = render(samples.hostile(), {})
    page = Page(raw)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert [value for name, value in page.attributes if name == "href"] == ["https://example.org/?a=1&b=<i>"]
    assert "<script>alert(1)</script>" in page.text, "shown, not run"
    assert "{{ 7 * 7 }}" in page.text, "not read as a template"


def test_no_control_character_reaches_the_page():
    raw = render(samples.hostile(), {})
    assert not [c for c in raw if (ord(c) < 32 and c not in "\n") or c in "\x7f\u202e\u2066"]
    assert "\\x1b[2J" in raw
    assert len(raw) < 300_000, "long ids are cut"


def test_the_page_needs_nothing_from_outside():
    page = Page(render(samples.full(), FIGURE))
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    sources = [value for name, value in page.attributes if name == "src"]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_the_verdict_comes_first():
    green, red = Page(render(samples.full(), {})).text, Page(render(samples.red(), {})).text
    assert green.index("Verified: every store equals the log") < green.index("Proof")
    assert red.index("Not verified: graph") < red.index("sent: 3 rows implied, 2 stored") < red.index("Proof")


def test_it_says_whether_the_data_is_real_and_gives_the_figures():
    page = Page(render(samples.full(), FIGURE)).text
    for said in (
        "221,208 real transactions",
        "0.991",
        "+0.050 [+0.030, +0.070]",
        "beaten",
        "undecided",
        "5,931 MiB",
        "tidemark alerts show case:0000",
    ):
        assert said in page
    assert "simulated" in Page(render(samples.empty(), {})).text


def test_an_empty_report_says_what_was_not_measured():
    page = Page(render(samples.empty(), {})).text
    for said in (
        "No store was verified.",
        "No stage was measured.",
        "Not measured in this run.",
        "Nothing was judged",
        "0 alerts",
    ):
        assert said in page


def test_a_case_id_cannot_break_out_of_the_command_that_is_shown():
    alert = samples.full().alerts[0].model_copy(update={"case_id": "x; rm -rf ~ 'y'"})
    page = Page(render(samples.full().model_copy(update={"alerts": (alert,)}), {})).text
    assert """tidemark alerts show 'x; rm -rf ~ '"'"'y'"'"''""" in page


@pytest.mark.parametrize(
    "target",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "tidemark status",
        "http://",
        "http://[",
        "http://x/\x1b",
        "http://a b",
        " http://x",
        "file:///etc",
    ],
)
def test_only_a_plain_web_address_can_be_clicked(target):
    assert not is_link(target)


def test_a_web_address_can_be_clicked():
    assert is_link("http://127.0.0.1:7474/browser/?cmd=edit&arg=MATCH%20(n)")
