"""Times as a person types them: UTC, to the day, the minute or the second."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import typer

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


def milliseconds(at: datetime) -> int:
    """Milliseconds since 1970 of a time without a zone, which is UTC."""
    return round(at.replace(tzinfo=UTC).timestamp() * 1000)
