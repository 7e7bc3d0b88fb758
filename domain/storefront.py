"""What a visitor of a shop did: the clickstream beside the payments, which are transactions like any other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from domain import values
from domain.errors import InvalidValue
from domain.events import Origin


class StorefrontEventKind(StrEnum):
    """The steps of a visit, in the order of the funnel."""

    UNKNOWN = "unknown"
    SESSION_STARTED = "session_started"
    PAGE_VIEWED = "page_viewed"
    PRODUCT_VIEWED = "product_viewed"
    PRODUCT_ADDED = "product_added"
    CHECKOUT_STARTED = "checkout_started"
    PAYMENT_ATTEMPTED = "payment_attempted"
    ORDER_PLACED = "order_placed"


@dataclass(frozen=True, slots=True)
class StorefrontEventRecorded:
    """One step of a visit. A click decides nothing and is refused by nobody: it is recorded as it comes.

    Attributes:
        event_id: from the shop's own facts, so that the same step always has the same id.
        customer_id: the wallet that pays, where the visitor is known: a pseudonym.
        amount, asset: what the product costs or the order comes to; together or not at all.
        tx_id: the transaction of a payment or order.
    """

    event_id: str
    session_id: str
    kind: StorefrontEventKind
    site: str
    customer_id: str | None
    device_id: str | None
    country: str | None
    product_id: str | None
    category: str | None
    amount: Decimal | None
    asset: str | None
    tx_id: str | None
    occurred_at: datetime
    origin: Origin

    def validate(self, arrived_at: datetime | None = None) -> None:
        """Check every rule of a step.

        Args:
            arrived_at: when it arrived, for the check against the future.

        Raises:
            InvalidValue: the first rule broken, with its field.
        """
        for name in ("event_id", "session_id", "site"):
            values.identifier(name, getattr(self, name))
        if self.kind is StorefrontEventKind.UNKNOWN:
            raise InvalidValue("kind", "expected a known kind, found unknown")
        for name in ("customer_id", "tx_id", "product_id"):
            if getattr(self, name) is not None:
                values.identifier(name, getattr(self, name))
        if (self.amount is None) != (self.asset is None):
            raise InvalidValue("asset", "expected an amount and its asset together, found one of them")
        if self.amount is not None and self.asset is not None:
            values.amount("amount", self.amount)
            values.identifier("asset", self.asset)
        for name in ("device_id", "country", "category"):
            values.text(name, getattr(self, name) or "")
        values.occurred_at(self.occurred_at, arrived_at)
