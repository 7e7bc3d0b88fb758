"""Links that open Neo4j Browser with an investigation written out or a guide playing.

A link carries text, not bound values, so this is the one place where values enter Cypher: checked first, and quoted
so that nothing in them ends the string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from graph.errors import InvalidParameter
from graph.investigation import investigation


def browser_link(browser_url: str, name: str, params: Mapping[str, Any]) -> str:
    """The link that opens Neo4j Browser with the investigation in its editor.

    Args:
        browser_url: the Browser's address, with or without `?dbms=…`.

    Raises:
        UnknownQuery: no investigation has this name.
        InvalidParameter: a parameter is missing, unknown or breaks its rule, or the address is none.
    """
    return _with_command(browser_url, "edit", query_text(name, params))


def guide_link(browser_url: str, guide_url: str) -> str:
    """The link that plays a guide once connected. The Browser loads guides from `localhost`, not from 127.0.0.1.

    Raises:
        InvalidParameter: an address is none.
    """
    parts = urlsplit(guide_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidParameter("guide_url", f"expected an http address, found {guide_url[:60]!r}")
    return _with_command(browser_url, "play", guide_url)


def query_text(name: str, params: Mapping[str, Any]) -> str:
    """The Cypher of an investigation with its parameters written into it, for people to read and run.

    Raises:
        UnknownQuery: no investigation has this name.
        InvalidParameter: a parameter is missing, unknown or breaks its rule.
    """
    asked = investigation(name)
    literals = {key: literal(value) for key, value in asked.bind(params).items()}
    return re.sub(r"\$(\w+)", lambda found: literals[found[1]], asked.cypher)


def literal(value: str | int) -> str:
    r"""A value as a Cypher expression.

    Quotes stand in strings of the other quote and a backslash stands alone, joined by `+`: Cypher 5 reads `\u0027` as
    a quote even after another backslash, so escaping inside one string is not enough.
    """
    if isinstance(value, int):
        return str(value)
    pieces = {"'": '"\'"', "\\": "'\\\\'"}
    found = [pieces.get(piece, f"'{piece}'") for piece in re.split(r"(['\\])", value) if piece]
    return " + ".join(found) or "''"


def _with_command(browser_url: str, command: str, argument: str) -> str:
    parts = urlsplit(browser_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidParameter("browser_url", f"expected an http address, found {browser_url[:60]!r}")
    joint = "&" if parts.query else "?"
    return f"{browser_url}{joint}cmd={command}&arg={quote(argument, safe='')}"
