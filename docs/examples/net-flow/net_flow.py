"""Net flow: for each asset and hour how much value moved, and for each wallet what came in, what went out, and the difference."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from projections.protocol import EventBatch, Excluded
from projections.table_projection import TableProjection
from schema_registry.contracts import TRANSACTION_EVENTS

LAYOUT = sa.MetaData()


def hourly(name: str, *columns: sa.Column) -> sa.Table:
    """A table with a row for each asset and hour (UTC, by `occurred_at`); an asset is named within its network."""
    network, asset = (sa.Column(of, sa.Text, primary_key=True) for of in ("network", "asset"))
    return sa.Table(name, LAYOUT, network, asset, sa.Column("hour", sa.DateTime(timezone=True), primary_key=True), *columns)


VOLUME = hourly(
    "asset_hour",
    sa.Column("transactions", sa.BigInteger, nullable=False),
    sa.Column("volume", sa.Numeric, nullable=False),  # without a precision: sums of amounts may outgrow the amounts' 38 digits
)
FLOW = hourly(
    "wallet_hour",
    sa.Column("wallet_id", sa.Text, primary_key=True),
    sa.Column("inflow", sa.Numeric, nullable=False),
    sa.Column("outflow", sa.Numeric, nullable=False),
    sa.Column("net", sa.Numeric, nullable=False),
)


class NetFlow(TableProjection):
    """Settled transactions alone. Who pays themselves has the amount on both sides; a side that the source does not name has no row."""

    name = "net-flow"
    topics = (TRANSACTION_EVENTS,)
    reads: ClassVar = {
        "TransactionRecorded": ("network", "asset", "status", "source_wallet_id", "target_wallet_id", "amount", "occurred_at")
    }
    layout = LAYOUT

    def rows(self, batch: EventBatch, excluded: Excluded) -> Iterator[tuple[sa.Table, pa.Table]]:
        recorded = batch.tables.get("TransactionRecorded")
        if recorded is None:
            return
        settled = recorded.filter(pc.equal(recorded["status"].cast(pa.string()), "settled"))
        excluded.add("not_settled", recorded.num_rows - settled.num_rows)
        hour = pc.floor_temporal(settled["occurred_at"].cast(pa.timestamp("us")), unit="hour")
        keys = {"network": settled["network"], "asset": settled["asset"], "hour": hour}
        amount, minus = settled["amount"], pc.negate(settled["amount"])
        none = pa.repeat(pa.scalar(Decimal(0), amount.type), settled.num_rows)
        one = pa.repeat(pa.scalar(1, pa.int64()), settled.num_rows)
        yield VOLUME, pa.table({**keys, "transactions": one, "volume": amount})
        for side, inflow, outflow, net in (("target", amount, none, amount), ("source", none, amount, minus)):
            flow = pa.table({**keys, "wallet_id": settled[f"{side}_wallet_id"], "inflow": inflow, "outflow": outflow, "net": net})
            yield FLOW, flow.filter(pc.is_valid(flow["wallet_id"]))
