"""Where card alerts are kept: a table of Postgres, in a schema of its own, and a table of DynamoDB. Nobody else writes there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
from botocore.exceptions import BotoCoreError, ClientError
from psycopg.conninfo import make_conninfo

from infra.lambdas.card_alerts import AlertKey, CardAlert
from projections.errors import ProjectionError, StoreUnavailable

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 20  # both below the function's own limit, so that it can say what does not answer
LAYOUT = """
CREATE SCHEMA IF NOT EXISTS card_alerts;
CREATE TABLE IF NOT EXISTS card_alerts.alert (
    tx_id text NOT NULL,
    tx_seq bigint NOT NULL,
    model_version text NOT NULL,
    score double precision NOT NULL,
    features_only_score double precision NOT NULL,
    threshold double precision NOT NULL,
    scored_at timestamptz NOT NULL,
    PRIMARY KEY (tx_id, tx_seq, model_version)
);
"""
_COLUMNS = "tx_id, tx_seq, model_version, score, features_only_score, threshold, scored_at"
ADD = f"""
INSERT INTO card_alerts.alert ({_COLUMNS})
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::float8[], %s::float8[], %s::float8[], %s::timestamptz[])
ON CONFLICT DO NOTHING
"""
FIND = f"""
SELECT {_COLUMNS} FROM card_alerts.alert
JOIN unnest(%s::text[], %s::bigint[], %s::text[]) AS k (tx_id, tx_seq, model_version) USING (tx_id, tx_seq, model_version)
ORDER BY tx_seq, tx_id, model_version
"""
LATEST = f"SELECT {_COLUMNS} FROM card_alerts.alert ORDER BY tx_seq DESC, tx_id, model_version LIMIT %s"
_TRANSIENT = ("08", "40", "53", "55", "57", "58")  # classes of SQLSTATE that time may cure
_MISSING = ("3F000", "42P01")  # no such schema, no such table
_GONE = "ConditionalCheckFailedException"


class PostgresAlerts:
    """`card_alerts.AlertTable` on Postgres. It connects at the first call and again after an error. Not for several threads.

    Args:
        dsn: libpq URI or conninfo.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def prepare(self) -> None:
        """Make schema and table where they are missing.

        Raises:
            StoreUnavailable, ProjectionError: Postgres does not answer, or refuses.
        """
        with self._transaction("making the table") as connection:
            connection.execute(LAYOUT)

    def keep(self, alerts: Sequence[CardAlert], of: Sequence[AlertKey]) -> list[CardAlert]:
        """See `card_alerts.AlertTable`."""
        with self._transaction("keeping alerts") as connection:
            if alerts:
                connection.execute(ADD, [list(column) for column in zip(*map(_row, alerts), strict=True)])
            return [_alert(row) for row in connection.execute(FIND, [list(column) for column in zip(*of, strict=True)])] if of else []

    def latest(self, limit: int | None = None) -> list[CardAlert]:
        """The alerts of the highest seqs, newest first; all of them without a limit.

        Raises:
            StoreUnavailable, ProjectionError: Postgres does not answer, or refuses.
        """
        with self._transaction("reading alerts") as connection:
            return [_alert(row) for row in connection.execute(LATEST, (limit,))]

    def close(self) -> None:
        """End the connection; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    @contextmanager
    def _transaction(self, what: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        try:
            if self._connection is None:
                timeout = f"-c statement_timeout={STATEMENT_TIMEOUT_S}s"
                conninfo = make_conninfo(
                    self._dsn, connect_timeout=CONNECT_TIMEOUT_S, application_name="tidemark-card-alerts", options=timeout
                )
                self._connection = psycopg.connect(conninfo)
            with self._connection.transaction():
                yield self._connection
        except psycopg.Error as error:
            self.close()
            raise _translated(what, error) from error
        except BaseException:
            self.close()
            raise


class DynamoAlerts:
    """`card_alerts.AlertItems` on DynamoDB: one item an alert, found by its tx_id."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._dynamodb, self._table = dynamodb, table

    def prepare(self) -> bool:
        """Make the table where it is missing; tells whether it was.

        Raises:
            StoreUnavailable: DynamoDB does not answer, or refuses.
        """
        names = ("tx_id", "scored_as")
        try:
            self._dynamodb.create_table(
                TableName=self._table, BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
                KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE"), strict=True)],
            )  # fmt: skip
            self._dynamodb.get_waiter("table_exists").wait(TableName=self._table, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ResourceInUseException":
                return False
            raise StoreUnavailable(f"DynamoDB: the table {self._table} cannot be made: {error}") from error
        return True

    def put(self, alerts: Sequence[CardAlert]) -> int:
        """See `card_alerts.AlertItems`."""
        fresh = 0
        for alert in alerts:
            try:
                self._dynamodb.put_item(TableName=self._table, Item=_item(alert), ConditionExpression="attribute_not_exists(tx_id)")
                fresh += 1
            except (ClientError, BotoCoreError) as error:
                if not (isinstance(error, ClientError) and error.response["Error"]["Code"] == _GONE):
                    raise StoreUnavailable(f"DynamoDB: {self._table} does not take an alert: {error}") from error
        return fresh

    def all(self) -> list[CardAlert]:
        """Every alert, in order of seq.

        Raises:
            StoreUnavailable: DynamoDB does not answer, or refuses.
        """
        try:
            pages = self._dynamodb.get_paginator("scan").paginate(TableName=self._table, ConsistentRead=True)
            found = [_from_item(item) for page in pages for item in page["Items"]]
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"DynamoDB: {self._table} cannot be read: {error}") from error
        return sorted(found, key=lambda alert: (alert.tx_seq, alert.tx_id, alert.model_version))


def _row(alert: CardAlert) -> tuple[Any, ...]:
    return (
        alert.tx_id, alert.tx_seq, alert.model_version, alert.score, alert.features_only_score, alert.threshold, alert.scored_at,
    )  # fmt: skip


def _alert(row: Sequence[Any]) -> CardAlert:
    tx_id, tx_seq, model_version, score, features_only_score, threshold, scored_at = row
    return CardAlert(tx_id, tx_seq, model_version, score, features_only_score, threshold, scored_at.astimezone(UTC))


def _item(alert: CardAlert) -> dict[str, Any]:
    return {
        "tx_id": {"S": alert.tx_id}, "scored_as": {"S": f"{alert.tx_seq:019d}#{alert.model_version}"},
        "tx_seq": {"N": str(alert.tx_seq)}, "model_version": {"S": alert.model_version}, "score": {"N": repr(alert.score)},
        "features_only_score": {"N": repr(alert.features_only_score)}, "threshold": {"N": repr(alert.threshold)},
        "scored_at": {"S": alert.scored_at.isoformat()},
    }  # fmt: skip


def _from_item(item: dict[str, Any]) -> CardAlert:
    return CardAlert(
        item["tx_id"]["S"], int(item["tx_seq"]["N"]), item["model_version"]["S"], float(item["score"]["N"]),
        float(item["features_only_score"]["N"]), float(item["threshold"]["N"]), datetime.fromisoformat(item["scored_at"]["S"]),
    )  # fmt: skip


def _translated(what: str, error: psycopg.Error) -> ProjectionError:
    """The driver's error as ours."""
    sentence = f"card alerts in Postgres, {what}: {str(error).strip()[:500]}"
    if error.sqlstate in _MISSING:
        return ProjectionError(f"{sentence}; `tidemark cards up` makes the table")
    if error.sqlstate is None or error.sqlstate[:2] in _TRANSIENT:
        return StoreUnavailable(sentence)
    return ProjectionError(sentence)
