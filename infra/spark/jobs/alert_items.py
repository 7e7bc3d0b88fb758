"""Alerts in DynamoDB: one item each, by the record's place. The table's stream calls the Lambda function.

Not by conditional puts, which go one a call: an item is the same whenever it is put, and what does not change an item is no event of
the stream (DynamoDB Developer Guide, "Change data capture for DynamoDB Streams").
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

_AT_ONCE = 25  # of one call, as DynamoDB has it
_ATTEMPTS, _BACKOFF_S, _BACKOFF_MOST_S = 10, 0.05, 2.0


class ItemsUnavailable(Exception):
    """DynamoDB does not answer, or refuses; the message says what."""


class AlertItems:
    """The table of one stack."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._dynamodb, self._table = dynamodb, table

    def prepare(self) -> bool:
        """Make the table, with its stream, where it is missing; tells whether it was.

        Raises:
            ItemsUnavailable: see there.
        """
        names = ("tx_id", "place")
        try:
            self._dynamodb.create_table(
                TableName=self._table, BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
                KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE"), strict=True)],
                StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
            )  # fmt: skip
            self._dynamodb.get_waiter("table_exists").wait(TableName=self._table, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ResourceInUseException":
                return False
            raise ItemsUnavailable(f"DynamoDB: the table {self._table} cannot be made: {error}") from error
        return True

    def exists(self) -> bool:
        """Whether the table is there.

        Raises:
            ItemsUnavailable: see there.
        """
        try:
            self._dynamodb.describe_table(TableName=self._table)
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ResourceNotFoundException":
                return False
            raise ItemsUnavailable(f"DynamoDB: the table {self._table} cannot be found: {error}") from error
        return True

    def put(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """Put alerts; one that is there already stays as it is, for an alert's item is always the same.

        Raises:
            ItemsUnavailable: see there. What was put before stays, and is no second item next time.
        """
        for first in range(0, len(alerts), _AT_ONCE):
            left = [{"PutRequest": {"Item": _item(alert)}} for alert in alerts[first : first + _AT_ONCE]]
            for attempt in range(_ATTEMPTS):
                left = self._write(left)
                if not left:
                    break
                time.sleep(min(_BACKOFF_MOST_S, _BACKOFF_S * 2**attempt))  # more than the table takes in a second
            else:
                raise ItemsUnavailable(f"DynamoDB: {self._table} leaves {len(left)} alerts undone, {_ATTEMPTS} times in a row")

    def count(self) -> int:
        """How many items there are.

        Raises:
            ItemsUnavailable: see there.
        """
        try:
            pages = self._dynamodb.get_paginator("scan").paginate(TableName=self._table, ConsistentRead=True, Select="COUNT")
            return sum(page["Count"] for page in pages)
        except (ClientError, BotoCoreError) as error:
            raise ItemsUnavailable(f"DynamoDB: {self._table} cannot be read: {error}") from error

    def _write(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            answer = self._dynamodb.batch_write_item(RequestItems={self._table: requests})
        except (ClientError, BotoCoreError) as error:
            raise ItemsUnavailable(f"DynamoDB: {self._table} does not take alerts: {error}") from error
        return list(answer.get("UnprocessedItems", {}).get(self._table, ()))


def _item(alert: Mapping[str, Any]) -> dict[str, Any]:
    item = {
        "tx_id": {"S": alert["tx_id"]}, "place": {"S": f"{alert['log_partition']:04d}/{alert['log_offset']:020d}"},
        "model_version": {"S": alert["model_version"]}, "score": {"N": repr(alert["score"])}, "threshold": {"N": repr(alert["threshold"])},
    }  # fmt: skip
    return item if alert["seq"] is None else {**item, "seq": {"N": str(alert["seq"])}}
