"""Structured logs: one event name plus fields, to standard error; JSON for machines, readable on a terminal."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# C0, DEL and C1 controls, and the marks that reorder text: from outside, they could forge or hide lines of a log.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def configure(level: str = "info", *, is_json: bool | None = None) -> None:
    """Set up logging for this process; the last call wins.

    Args:
        level: least level that is written: debug, info, warning or error.
        is_json: one JSON object a line, or readable; by default readable exactly when standard error is a terminal.

    Raises:
        ValueError: the level has another name.
    """
    if level not in _LEVELS:
        raise ValueError(f"level {level!r}: expected one of {', '.join(_LEVELS)}")
    as_json = not sys.stderr.isatty() if is_json is None else is_json
    rendering: list[Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [escape_fields, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="logged_at"),
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def escape_control(text: str) -> str:
    """Return the text with every control character written out, as `\\x1b` is."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def escape_fields(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Escape control characters in every text of a log event: a structlog processor for the readable rendering."""
    return {key: _escape(value) for key, value in event.items()}


def _escape(value: Any) -> Any:
    if isinstance(value, str):
        return escape_control(value)
    if isinstance(value, (dict, list, tuple, set)):
        return escape_control(repr(value))
    return value
