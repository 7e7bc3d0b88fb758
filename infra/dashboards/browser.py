"""Shows a page in a browser of this desktop, if there is one: never in a text browser, which would take the terminal over."""

from __future__ import annotations

import webbrowser
from pathlib import Path


def show(file: Path) -> bool:
    """Open a page without waiting; whether there was something to open it in."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    # The standard library wraps what runs in a terminal (lynx, w3m) in this very class, and desktop browsers in its subclasses.
    if type(browser) is webbrowser.GenericBrowser:
        return False
    return browser.open(file.absolute().as_uri())
