"""What assets cost: facts from outside, by which amounts of several assets may be added up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from domain import values
from domain.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class AssetPriced:
    """One unit of `asset` cost `price` units of `quote_asset` from `priced_at` on, until the next price of the pair.

    A price decides nothing and is refused by nobody: it is recorded as it comes. Nothing that happened before `priced_at` may use it.
    """

    asset: str
    quote_asset: str
    price: Decimal
    source: str
    priced_at: datetime

    def validate(self, arrived_at: datetime | None = None) -> None:
        """Check every rule of a price.

        Args:
            arrived_at: when it arrived, for the check against the future.

        Raises:
            InvalidValue: the first rule broken, with its field.
        """
        values.identifier("asset", self.asset)
        values.identifier("quote_asset", self.quote_asset)
        if self.asset == self.quote_asset:
            raise InvalidValue("quote_asset", f"expected another asset than {self.asset[:40]!r}, found the same")
        if values.amount("price", self.price) == 0:
            raise InvalidValue("price", "expected a price above zero, found zero")
        values.text("source", self.source)
        values.occurred_at(self.priced_at, arrived_at, "priced_at")
