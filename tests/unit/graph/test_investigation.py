"""Investigations bind and check what they are given; links and guides carry hostile text as text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from domain.errors import InvalidValue
from graph.browser import GuideAlert, browser_link, guide_link, render_guide
from graph.browser.links import literal, query_text
from graph.errors import InvalidParameter, UnknownQuery
from graph.investigation import INVESTIGATIONS, investigation

BROWSER = "http://127.0.0.1:7474/browser/?dbms=bolt://neo4j@127.0.0.1:7687"
EXAMPLES: dict[str, str | int] = {
    "wallet_id": "test:a", "source_wallet_id": "test:a", "target_wallet_id": "test:b", "case_id": "c1",
}  # fmt: skip


@pytest.mark.parametrize("name", INVESTIGATIONS)
def test_each_investigation_uses_exactly_the_parameters_it_names(name: str) -> None:
    asked = investigation(name)
    bound = asked.bind({key: EXAMPLES[key] for key in asked.parameters if key in EXAMPLES})
    assert set(bound) == set(asked.parameters)
    assert all(f"${key}" in asked.cypher for key in bound)
    assert "$" not in query_text(name, bound)
    assert asked.doc and asked.timeout_s > 0


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(UnknownQuery, match=r"expected one of alert, neighbourhood, .* found 'nonsense'"):
        investigation("nonsense")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "wallet_id: neighbourhood needs it"),
        ({"wallet_id": "no network"}, "wallet_id: .*expected <network>:<address>"),
        ({"wallet_id": "test:a\n"}, "no control characters"),
        ({"wallet_id": "test:a", "limit": 0}, "limit: .*expected 1 to 500, found 0"),
        ({"wallet_id": "test:a", "limit": "1; DROP"}, "limit: "),
        ({"wallet_id": "test:a", "query": "x"}, "query: neighbourhood has no such parameter"),
    ],
    ids=["missing", "not a wallet", "newline", "too small", "not a number", "unknown"],
)
def test_a_parameter_that_breaks_its_rule_is_named(given: dict[str, str | int], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message) as caught:
        investigation("neighbourhood").bind(given)
    assert isinstance(caught.value, InvalidValue)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("test:a", "'test:a'"),
        ("it's", "'it' + \"'\" + 's'"),
        ('say "x"', "'say \"x\"'"),
        ("a\\u0027b", "'a' + '\\\\' + 'u0027b'"),
        ("\\", "'\\\\'"),
        (7, "7"),
    ],
    ids=["plain", "quote", "double quote", "unicode escape", "backslash", "number"],
)
def test_a_literal_never_ends_early(value: str | int, expected: str) -> None:
    assert literal(value) == expected


def test_a_link_opens_the_editor_with_the_query() -> None:
    link = browser_link(BROWSER, "neighbourhood", {"wallet_id": "test:a&cmd=play#x"})
    parts = urlsplit(link)
    assert (parts.scheme, parts.netloc, parts.path, parts.fragment) == ("http", "127.0.0.1:7474", "/browser/", "")
    found = parse_qs(parts.query)
    assert found["cmd"] == ["edit"]
    assert found["dbms"] == ["bolt://neo4j@127.0.0.1:7687"]
    assert "{wallet_id: 'test:a&cmd=play#x'}" in found["arg"][0]
    assert browser_link("http://h/browser/", "alerts", {}).startswith("http://h/browser/?cmd=edit&arg=")


def test_a_guide_link_plays_it() -> None:
    link = guide_link(BROWSER, "http://localhost:8001/guide.html")
    assert unquote(link).endswith("&cmd=play&arg=http://localhost:8001/guide.html")


@pytest.mark.parametrize("address", ["javascript:alert(1)", "", "file:///etc/passwd"])
def test_a_link_needs_an_http_address(address: str) -> None:
    with pytest.raises(InvalidParameter, match="expected an http address"):
        browser_link(address, "alerts", {})
    with pytest.raises(InvalidParameter, match="expected an http address"):
        guide_link(BROWSER, address)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_guide_escapes_everything_and_has_a_slide_an_alert(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=y> \x1b[31m ' \" & \n"
    alerts = [GuideAlert(f"case{i}", f"test:{i}'\"<b>", "score", 0.9, 0.8, "alerted", hostile) for i in range(3)]
    path = render_guide(alerts, tmp_path)
    parser = _Tags()
    parser.feed(path.read_text("utf-8"))
    assert parser.open == []
    assert parser.tags.count("slide") == 3 + 2
    assert not {"script", "img", "b"} & set(parser.tags)
    assert 'class="highlight pre-scrollable programlisting code runnable"' in path.read_text("utf-8")
    assert "caption" in (tmp_path / "style.grass").read_text("utf-8")
    assert render_guide([], tmp_path) == path
    assert sorted(file.name for file in tmp_path.iterdir()) == ["guide.html", "style.grass"]
