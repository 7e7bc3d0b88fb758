"""How far shards were read, kept in DynamoDB."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from projections.errors import StoreUnavailable

CHECKPOINTS = "tidemark-event-sources"
"""The table's name."""


class DynamoCheckpoints:
    """Checkpoints in a DynamoDB table with the key `shard`.

    Args:
        whose: before each key, where several keep theirs in one table.
    """

    def __init__(self, dynamodb: Any, table: str, whose: str = "") -> None:
        self._dynamodb, self._table, self._whose = dynamodb, table, whose

    def load(self, stream: str, shard: str) -> str | None:
        """See `event_source.Checkpoints`."""
        key = {"shard": {"S": f"{self._whose}{stream}/{shard}"}}
        try:
            found = self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True).get("Item")
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"the checkpoints in {self._table} cannot be read: {error}") from error
        return str(found["sequence_number"]["S"]) if found else None

    def save(self, stream: str, shard: str, sequence_number: str) -> None:
        """See `event_source.Checkpoints`."""
        item = {"shard": {"S": f"{self._whose}{stream}/{shard}"}, "sequence_number": {"S": sequence_number}}
        try:
            self._dynamodb.put_item(TableName=self._table, Item=item)
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"the checkpoint in {self._table} cannot be kept: {error}") from error
