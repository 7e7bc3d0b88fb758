"""The page is shown on a desktop alone: a text browser would take the terminal over."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

import pytest

from infra.dashboards.browser import show


class Desktop(webbrowser.BaseBrowser):
    """A browser of a desktop that notes what it is shown."""

    def __init__(self) -> None:
        super().__init__("desktop")
        self.shown: list[str] = []

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        self.shown.append(url)
        return True


def test_a_desktop_browser_is_shown_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    browser = Desktop()
    monkeypatch.setattr(webbrowser, "get", lambda: browser)
    assert show(tmp_path / "a page.html")
    assert browser.shown == [(tmp_path / "a page.html").as_uri()]


@pytest.mark.parametrize("found", [webbrowser.GenericBrowser("lynx"), webbrowser.Error("none")], ids=["text", "none"])
def test_a_text_browser_is_not_started(monkeypatch: pytest.MonkeyPatch, found: Any, tmp_path: Path) -> None:
    def get() -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(webbrowser, "get", get)
    assert not show(tmp_path / "page.html")
