"""Connections to the warehouse over ADBC, and the one place where the driver's errors become ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa
from adbc_driver_manager.dbapi import Connection, Cursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from projections.errors import ProjectionError, StoreDisagrees, StoreUnavailable

Connect = Callable[[], Connection]

CONNECT_TIMEOUT_S = 10  # a server that does not answer is named at once, not after the kernel's two minutes
KEEPALIVE_IDLE_S = 30  # a server that vanished in the middle of a load is noticed within about a minute
_DISK_FULL = "53100"
# SQLSTATE classes that time may cure: connection, transaction rolled back, locks, resources, operator, system.
_TRANSIENT = frozenset({"08", "40", "53", "55", "57", "58"})


def connector(dsn: str) -> Connect:
    """What opens connections to a libpq URI or conninfo string; nothing is opened yet.

    Raises:
        ProjectionError: the text is neither.
    """
    if dsn.startswith("redshift"):
        raise ProjectionError("this works on PostgreSQL alone, and the warehouse is Redshift")
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.Error as error:
        raise ProjectionError("expected a libpq URI or conninfo for the warehouse, found something else") from error
    defaults: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": KEEPALIVE_IDLE_S,
        "application_name": "tidemark-warehouse",
    }
    conninfo = make_conninfo("", **{**defaults, **given})
    return lambda: adbc.connect(conninfo)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Run a step; the driver's errors come out as ours with their cause.

    Raises:
        StoreUnavailable: the server does not answer, ended the session or asks to try again.
        ProjectionError: it answered, and refused for a reason that trying again does not cure.
    """
    try:
        yield
    except adbc_driver_manager.Error as error:
        sentence = f"{what}: {str(error).strip()[:500]}"
        if _state(error) == _DISK_FULL:
            raise StoreUnavailable(
                f"the warehouse's disk is full, and nothing was kept of {sentence}. Make room where it keeps its data: the worker goes on"
            ) from error
        if _is_transient(error):
            raise StoreUnavailable(f"the warehouse did not answer while {sentence}") from error
        raise ProjectionError(f"the warehouse refused while {sentence}") from error


@contextmanager
def read_through() -> Iterator[None]:
    """Read a stream of rows; errors that come up between two pieces come out as ours.

    Raises:
        StoreUnavailable: the server went away in the middle.
        StoreDisagrees: it holds a value that this projection never writes, such as NaN for an amount.
    """
    try:
        yield
    except pa.ArrowInvalid as error:
        raise StoreDisagrees(f"the warehouse holds a value that was never written to it: {str(error)[:500]}") from error
    except OSError as error:
        raise StoreUnavailable(f"the warehouse went away while it was read back: {str(error)[:500]}") from error


def run(cursor: Cursor, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Execute one statement with bound values; its rows, none for statements that give no result."""
    cursor.execute(statement, tuple(parameters) or None)
    return cursor.fetchall() if cursor.description else []


def _state(error: adbc_driver_manager.Error) -> str:
    return (error.sqlstate or "").strip("\0")


def _is_transient(error: adbc_driver_manager.Error) -> bool:
    state = _state(error)
    if state:
        return state[:2] in _TRANSIENT
    # Without a SQLSTATE the server had no say: libpq lost the connection, or the driver refused the call itself.
    return isinstance(error, (adbc_driver_manager.OperationalError, adbc_driver_manager.InternalError))
