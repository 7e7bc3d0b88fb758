"""Connections to Redshift through SQLAlchemy and Amazon's driver, and the one place where their errors become ours."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from projections.errors import ProjectionError, StoreUnavailable

DRIVER = "redshift+redshift_connector"
KEEPALIVE_IDLE_S = 30  # a server that vanished in the middle of a load is noticed
_OFF = ("false", "0", "no", "off")
# SQLSTATE classes that time may cure: connection, transaction rolled back, locks, resources, operator, system.
_TRANSIENT_CLASSES = frozenset({"08", "40", "53", "55", "57", "58"})
# Redshift says these under XX000: another transaction came first; a staged file is gone or S3 did not answer (it is written again).
_TRANSIENT_TEXTS = ("1023", "Serializable isolation violation", "S3ServiceException", "S3 object", "S3 prefix")
# Two who make the same schema or table at the same moment: one of them finds it there when it looks again.
_MADE_BY_ANOTHER = frozenset({"42P06", "42P07", "23505"})


def redshift_engine(dsn: str) -> sa.Engine:
    """An engine on `redshift://…` or `redshift+redshift_connector://…`, always by Amazon's driver; nothing is opened yet.

    TLS with the server's name checked is the default; `?ssl=false` turns it off.

    Raises:
        ProjectionError: the text is no such address. The message does not repeat it, for it may hold a password.
    """
    try:
        url: URL = make_url(dsn)
    except (ArgumentError, ValueError):
        raise ProjectionError("expected redshift+redshift_connector://user:password@host:5439/database, found something else") from None
    if url.get_backend_name() != "redshift" or not url.host or not url.database:
        raise ProjectionError("expected redshift+redshift_connector:// with a host and a database, found another address")
    connect: dict[str, Any] = {"application_name": "tidemark-warehouse", "tcp_keepalive_idle": KEEPALIVE_IDLE_S}
    if (ssl := url.query.get("ssl")) is not None:  # the driver wants a boolean and takes any text for "no"
        connect["ssl"] = str(ssl).lower() not in _OFF
    url = url.difference_update_query(["ssl"]).set(drivername=DRIVER)
    return sa.create_engine(url, poolclass=NullPool, connect_args=connect)


class ServerRefusal(Exception):
    """What the server said, with its SQLSTATE, as the cause of ours; its own cause is the driver's error."""

    def __init__(self, sqlstate: str, text: str) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


@contextmanager
def redshift_translated(what: str) -> Iterator[None]:
    """Run a step; the driver's errors come out as ours with their cause.

    Raises:
        StoreUnavailable: the server does not answer, ended the session or asks to try again (error 1023 too: the next try finds
            by the checkpoint whether a second worker was the reason).
        ProjectionError: it answered, and refused for a reason that trying again does not cure.
    """
    try:
        yield
    except DBAPIError as error:
        _raise(what, error, error.orig)
    except (OSError, struct.error) as error:  # the driver lets these through where a connection breaks inside a message
        raise StoreUnavailable(f"the warehouse did not answer while {what}: {error}") from error


def _raise(what: str, error: DBAPIError, cause: BaseException | None) -> None:
    said = cause.args[0] if cause is not None and cause.args else ""
    if not isinstance(said, dict):  # the server had no say: the connection is gone
        raise StoreUnavailable(f"the warehouse did not answer while {what}: {str(said)[:500]}") from error
    state, text = str(said.get("C", "")), f"{said.get('M', '')} {said.get('D', '')}".strip()
    sentence = f"{what}: {text[:500]}"
    refusal = ServerRefusal(state, text)
    refusal.__cause__ = error
    if state[:2] in _TRANSIENT_CLASSES or state in _MADE_BY_ANOTHER or any(part in text for part in _TRANSIENT_TEXTS):
        raise StoreUnavailable(f"the warehouse did not answer while {sentence}") from refusal
    raise ProjectionError(f"the warehouse refused while {sentence}") from refusal
