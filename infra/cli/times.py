"""Times as a person types them: UTC, to the day, the minute or the second."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import typer

EARLIEST = "earliest"
FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


def time_of(text: str, expected: str, option: str) -> datetime:
    """The time that a text means.

    Args:
        expected: what the option takes, for the message.

    Raises:
        typer.BadParameter: it is none.
    """
    for pattern in FORMATS:
        with suppress(ValueError):
            return datetime.strptime(text, pattern)
    raise typer.BadParameter(f"{expected}, found {text!r}", param_hint=option)


def bound_of(text: str, option: str) -> int | datetime:
    """Where a range begins or ends: a seq, a time in UTC, or 0 for `earliest`.

    Raises:
        typer.BadParameter: it is none.
    """
    if text == EARLIEST:
        return 0
    if text.isdecimal():
        return int(text)
    return time_of(text, f"expected a seq, {EARLIEST} or a time like 2026-11-02T12:00", option).replace(tzinfo=UTC)


def milliseconds(at: datetime) -> int:
    """Milliseconds since 1970 of a time without a zone, which is UTC."""
    return round(at.replace(tzinfo=UTC).timestamp() * 1000)
