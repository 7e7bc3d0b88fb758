"""What fraud analysts ask of the warehouse: named SELECTs beside this file, in the SQL that Postgres and Redshift share.

A file's first line is its question; what it takes stands in `PARAMETERS`. Values are bound, each cast to its type. Everything is asked
of the live generation through `warehouse.*`, read-only and within a time limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from functools import cache
from importlib.resources import files
from typing import Any, Final, Protocol

import pyarrow as pa
from adbc_driver_manager.dbapi import Cursor

from domain.errors import InvalidValue
from projections.warehouse.connection import Connect, connector, run, translated
from projections.warehouse.generations import LIVE_SCHEMA
from projections.warehouse.redshift import RedshiftDatabase
from projections.warehouse.redshift import run as run_on_redshift
from projections.warehouse.redshift_connection import redshift_translated
from projections.warehouse.redshift_statements import USE_UTC

TIMEOUT_S: Final = 60
MAX_ROWS: Final = 100_000  # more is an export, not an answer
ROWS: Final = 100
_PARAMETER = re.compile(r":([a-z_]+)")
_HEAD = "SELECT max(hour_start) + INTERVAL '1 hour' FROM dim_time"

_WHOLE = Context(prec=80)  # no digit of a NUMERIC is lost

Value = str | int | Decimal | datetime
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A bound value: its type in SQL, how a text becomes it, what it means, and what it is where none is given (None: it must be)."""

    sql_type: str
    parse: Callable[[str], Value]
    doc: str
    default: Value | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A named question and its SELECT, with `:name` where a value goes."""

    name: str
    question: str
    parameters: Mapping[str, Parameter]
    select: str

    def statement(self, dollar: bool, limit: int) -> tuple[str, tuple[str, ...]]:
        """The statement, and the parameters in the order of their numbers.

        Args:
            dollar: values as `$1`, `$2`, as Postgres has them, else by their names.
            limit: rows at most.
        """
        names = tuple(dict.fromkeys(_PARAMETER.findall(self.select)))

        def cast(found: re.Match[str]) -> str:
            place = f"${names.index(found[1]) + 1}" if dollar else f":{found[1]}"
            return f"CAST({place} AS {self.parameters[found[1]].sql_type})"

        return f"{_PARAMETER.sub(cast, self.select)}\nLIMIT {limit:d}", names

    def bind(self, given: Mapping[str, str], head: Callable[[], datetime]) -> dict[str, Value]:
        """The values of one call.

        Args:
            head: the end of the facts, for `at` where none is given.

        Raises:
            InvalidValue: one is missing, unknown or of another kind.
        """
        if unknown := [name for name in given if name not in self.parameters]:
            raise InvalidValue(unknown[0][:40], f"{self.name} has no such parameter; it takes {', '.join(self.parameters)}")
        bound: dict[str, Value] = {}
        for name, parameter in self.parameters.items():
            if name in given:
                try:
                    bound[name] = parameter.parse(given[name])
                except (ValueError, InvalidOperation) as error:
                    raise InvalidValue(name, f"expected {parameter.doc}, found {given[name][:80]!r}") from error
            elif parameter.default is not None:
                bound[name] = parameter.default
            elif parameter is NOW:
                bound[name] = datetime.now(UTC)
            elif parameter is AT:
                bound[name] = head()
            else:
                raise InvalidValue(name, f"{self.name} needs it: {parameter.doc}")
        return bound


@dataclass(frozen=True, slots=True)
class Answer:
    """Column names, rows of plain values, and the values that were asked with."""

    columns: tuple[str, ...]
    rows: list[Row]
    bound: Mapping[str, Value]


class Analyst(Protocol):
    """Who asks."""

    def ask(self, query: Query, given: Mapping[str, str], limit: int = ROWS) -> Answer:
        """Ask a question.

        Raises:
            InvalidValue: a parameter is missing, unknown or of another kind, or the limit is not 1 to `MAX_ROWS`.
            StoreUnavailable: the warehouse does not answer within `TIMEOUT_S`.
            ProjectionError: it refuses; no generation was published yet, for instance.
        """


class PostgresAnalyst:
    """On Postgres. See `Analyst`."""

    def __init__(self, dsn: str | Connect) -> None:
        self._connect = connector(dsn) if isinstance(dsn, str) else dsn

    def ask(self, query: Query, given: Mapping[str, str], limit: int = ROWS) -> Answer:
        """See `Analyst`."""
        statement, names = query.statement(True, _checked(limit))
        with translated(f"asking {query.name}"), self._connect() as connection, connection.cursor() as cursor:
            run(cursor, "SET TRANSACTION READ ONLY")
            run(cursor, f"SET LOCAL search_path TO {LIVE_SCHEMA}")
            run(cursor, "SET LOCAL timezone TO 'UTC'")  # a day is a day of the log, wherever the server stands
            run(cursor, f"SET LOCAL statement_timeout TO '{TIMEOUT_S}s'")
            bound = query.bind(given, lambda: _time(run(cursor, _HEAD)))
            cursor.execute(statement, tuple(_plain(bound[name]) for name in names) or None)
            return Answer(*_fetched(cursor), bound)


class RedshiftAnalyst:
    """On Redshift. See `Analyst`."""

    def __init__(self, database: RedshiftDatabase) -> None:
        self._engine = database.engine

    def ask(self, query: Query, given: Mapping[str, str], limit: int = ROWS) -> Answer:
        """See `Analyst`."""
        import sqlalchemy as sa

        statement, _ = query.statement(False, _checked(limit))
        with redshift_translated(f"asking {query.name}"), self._engine.connect() as connection:
            for setting in (USE_UTC, f"SET search_path TO {LIVE_SCHEMA}", f"SET statement_timeout TO {TIMEOUT_S * 1000}"):
                run_on_redshift(connection, setting)
            bound = query.bind(given, lambda: _time(run_on_redshift(connection, _HEAD)))
            result = connection.execute(sa.text(statement), {name: _plain(value) for name, value in bound.items()})
            return Answer(tuple(result.keys()), [tuple(map(_shown, row)) for row in result.fetchall()], bound)


@cache
def queries() -> Mapping[str, Query]:
    """Every query by its name."""
    found = {}
    for name, parameters in PARAMETERS.items():
        question, _, select = files(__name__).joinpath(f"{name.replace('-', '_')}.sql").read_text("utf-8").partition("\n")
        found[name] = Query(name, question.removeprefix("-- "), parameters, select.strip())
    return found


def query_of(name: str) -> Query:
    """The query of this name.

    Raises:
        InvalidValue: there is none.
    """
    if name not in queries():
        raise InvalidValue("query", f"expected one of {', '.join(queries())}, found {name[:40]!r}")
    return queries()[name]


def _checked(limit: int) -> int:
    if not 1 <= limit <= MAX_ROWS + 1:
        raise InvalidValue("limit", f"expected 1 to {MAX_ROWS}, found {limit}")
    return limit


def _time(rows: list[Row]) -> datetime:
    found = rows[0][0]
    return found if isinstance(found, datetime) else datetime.now(UTC)


def _fetched(cursor: Cursor) -> tuple[tuple[str, ...], list[Row]]:
    table = cursor.fetch_arrow_table()
    columns = [_values(column) for column in table.columns]
    return tuple(table.column_names), list(zip(*columns, strict=True))


def _values(column: pa.ChunkedArray) -> list[Any]:
    if not isinstance(column.type, pa.OpaqueType):
        return list(column.to_pylist())
    texts = column.cast(column.type.storage_type).to_pylist()  # NUMERIC, as text that loses nothing
    return [None if text is None else _shown(Decimal(text)) for text in texts]


def _shown(value: Any) -> Any:
    """Exact numbers without the zeros that only their column's scale asks for."""
    if not isinstance(value, Decimal):
        return value
    return Decimal(format(value.normalize(_WHOLE), "f"))


def _plain(value: Value) -> Any:
    return str(value) if isinstance(value, Decimal) else value


def _whole(doc: str, default: int, low: int = 1, high: int = 100_000) -> Parameter:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError
        return number

    return Parameter("integer", parse, f"{doc}: {low} to {high}", default)


def _text(doc: str, default: str | None = None) -> Parameter:
    return Parameter("varchar", str, doc, default)


def _amount(doc: str, default: Decimal | None = None) -> Parameter:
    def parse(text: str) -> Decimal:
        number = Decimal(text)
        if not number.is_finite():
            raise ValueError
        return number

    return Parameter("numeric(38, 18)", parse, doc, default)


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


AT = Parameter("timestamptz", _moment, "the time (UTC) up to which is looked, which is left out; by default the end of the facts")
NOW = Parameter("timestamptz", _moment, "the time (UTC) up to which decisions are looked at, which is left out; by default now")
"""For what became known and was decided: that goes on after the last transaction."""
PARAMETERS: Final[Mapping[str, Mapping[str, Parameter]]] = {
    "wallet-history": {"wallet_id": _text("the wallet, <network>:<address>"), "at": AT},
    "hourly-volume": {"at": AT},
    "structuring": {
        "bound": _amount("the amount that is avoided"), "asset": _text("the asset of the bound"),
        "margin_percent": _whole("how far below the bound, in percent of it", 10, 1, 99), "hours": _whole("how far back", 24),
        "at_least": _whole("transactions of a wallet", 3), "at": AT,
    },
    "fan-in": {"hours": _whole("how far back", 24), "at_least": _whole("senders", 10, 2), "at": AT},
    "rapid-movement": {
        "hours": _whole("how far back", 24), "share_percent": _whole("what went out, in percent of what came in", 80, 1, 100),
        "amount": _amount("what came in at least", Decimal(0)), "at": AT,
    },
    "alert-precision": {"at": NOW},
    "waking-wallets": {
        "quiet_days": _whole("days without a transaction", 14), "seen_days": _whole("days before, with one", 30), "at": AT,
    },
    "failing-merchants": {"days": _whole("how far back", 7), "at_least": _whole("payments of a receiver", 20), "at": AT},
    "case-ageing": {"at": NOW},
    "who-did-what": {"actor": _text("who decided; empty is everybody", ""), "days": _whole("how far back", 30), "at": NOW},
    "wallet-flows": {"wallet_id": _text("the wallet, <network>:<address>"), "days": _whole("how far back", 30), "at": AT},
    "trading-volume": {"quote": _text("the asset that is added up in", "USD"), "days": _whole("how far back", 90), "at": AT},
    "hubs": {"days": _whole("how far back", 30), "at_least": _whole("counterparties of a wallet", 10, 2), "at": AT},
    "sudden-growth": {
        "hours": _whole("the last hours that are looked at", 24), "days": _whole("days before them", 14),
        "times": _whole("how many times as many", 10, 2), "at_least": _whole("transactions in the last hours", 10), "at": AT,
    },
    "links": {"days": _whole("how far back", 30), "at": AT},
    "case-transactions": {"case_id": _text("the case")},
}  # fmt: skip
"""Query → what it takes."""
