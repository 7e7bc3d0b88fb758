"""Steps of a visit as JSON, one object a record, told from transactions by their `event`. Version 1 is described in docs/shop.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from domain.events import Origin
from domain.storefront import StorefrontEventKind, StorefrontEventRecorded
from infra.lambdas import json_fields as read

VERSION = 1
MAPPING = f"storefront_json@{VERSION}"
KIND = "event"
"""The field that a transaction does not have."""
_TEXTS = ("customer_id", "device_id", "country", "product_id", "category", "asset", "tx_id")
_FIELDS = {"version", KIND, "event_id", "session_id", "site", "amount", "occurred_at", *_TEXTS}


def storefront_event_of(value: Mapping[str, Any], origin: Origin, arrived_at: datetime) -> StorefrontEventRecorded:
    """The step in one JSON object.

    Args:
        arrived_at: when the stream took it, for the check against the future.

    Raises:
        Refused: it is none; the reason says why.
    """
    read.known(value, VERSION, _FIELDS)
    found = StorefrontEventRecorded(
        event_id=read.text("event_id", read.needed(value, "event_id")),
        session_id=read.text("session_id", read.needed(value, "session_id")),
        kind=read.member(StorefrontEventKind, KIND, read.needed(value, KIND)),
        site=read.text("site", read.needed(value, "site")),
        amount=read.optional_decimal(value, "amount"),
        occurred_at=read.time_of(read.needed(value, "occurred_at")),
        origin=origin,
        **{name: read.optional_text(value, name) for name in _TEXTS},
    )
    read.validated(found, arrived_at)
    return found


def storefront_event_to_json(event: StorefrontEventRecorded) -> bytes:
    """The JSON of a step; nulls are left out."""
    names = ("event_id", "session_id", "site", "amount", "occurred_at", *_TEXTS)
    fields = {name: read.plain_json(getattr(event, name)) for name in names if getattr(event, name) is not None}
    return json.dumps({"version": VERSION, KIND: event.kind.value, **fields}, separators=(",", ":")).encode()
