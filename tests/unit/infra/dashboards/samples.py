"""Dashboards to test with: a full one, an empty one and a hostile one."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from infra.dashboards.model import (
    AlertedWallet,
    Alerts,
    AtRisk,
    Dashboard,
    Figures,
    Funnel,
    Log,
    TopicPosition,
    Visits,
    Volume,
    Window,
    Worker,
)
from tests.unit.infra.report.samples import HOSTILE

SINCE = datetime(2026, 3, 2, tzinfo=UTC)
MADE_AT = datetime(2026, 4, 1, 5, 6, 7, tzinfo=UTC)
PAIRS = (("ethereum", "ETH", 900, 4.0), ("ethereum", "USDT", 400, 950.0), ("card", "EUR", 700, 61.5), ("bank", "EUR", 120, 4_000.0))


def full() -> Dashboard:
    """Every part filled in, a month by day."""
    chance = random.Random(3)
    volume = []
    for day in range(30):
        for network, asset, n, mean in PAIRS:
            transactions = round(n * chance.uniform(0.7, 1.3))
            settled = round(transactions * chance.uniform(0.93, 0.99))
            amount = Decimal(round(settled * mean * chance.uniform(0.8, 1.2) * 100)) / 100
            volume.append(Volume(SINCE + timedelta(days=day), network, asset, transactions, settled, amount))
    return Dashboard(
        MADE_AT,
        "local",
        Figures(
            2,
            Window(SINCE, SINCE + timedelta(days=30), "day", False),
            SINCE + timedelta(days=29),
            MADE_AT - timedelta(seconds=9),
            (TopicPosition("case-events", 6, 210), TopicPosition("transaction-events", 6, 65_123)),
            tuple(volume),
            tuple(round(20_000 * 0.62**i) + (40 if i == 19 else 0) for i in range(20)),
            tuple(Alerts(SINCE + timedelta(days=day), "score", chance.randrange(1, 9)) for day in range(30) if day % 4),
            Funnel(104, 61, 38, 20, {"fraud": 21, "not_fraud": 14, "inconclusive": 3}),
            (AtRisk("ETH", 412, Decimal("10234.123456789012345678"), Decimal("98000")), AtRisk("USDT", 18, Decimal("99010.5"), None)),
            tuple(
                AlertedWallet(
                    f"ethereum:0x{chance.getrandbits(160):040x}", f"{chance.getrandbits(64):016x}", 0.999 - i * 0.004, 1, 3 + i, "score",
                    ("alerted", "open", "decided", "closed")[i % 4], ("", "", "fraud", "not_fraud")[i % 4], SINCE + timedelta(days=i),
                    "Some Exchange" if i == 2 else "", "exchange" if i == 2 else "unknown",
                )
                for i in range(12)
            ),
            Visits(1_000, 700, 240, 130, 118, 104),
        ),
        Log(
            (
                Worker("command-handler", "ready", 0, 0.0, 120.0, 0, None),
                Worker("warehouse", "ready", 1_203, 4.2, 900.0, 2, None),
                Worker("graph", "restarting", None, None, 0.0, 0, "its position cannot be read: neo4j is down"),
            ),
            {"negative_amount": 12, "not_decodable": 3},
        ),
    )  # fmt: skip


def empty() -> Dashboard:
    """A warehouse that was just made."""
    return Dashboard(MADE_AT, "local", Figures(1, None, None, None, ()), Log())


def hostile() -> Dashboard:
    """Markup wherever text comes from outside."""
    page = full()
    worker = Worker(HOSTILE[0], HOSTILE[1], 1, 1.0, 1.0, 1, HOSTILE[3])
    figures = replace(
        page.figures,
        volume=tuple(Volume(SINCE, text, HOSTILE[-i], 5, 4, Decimal(7)) for i, text in enumerate(HOSTILE)),
        alerts=tuple(Alerts(SINCE, text, 2) for text in HOSTILE),
        funnel=Funnel(2, 2, 2, 2, dict.fromkeys(HOSTILE, 1)),
        at_risk=tuple(AtRisk(text, 1, Decimal(1), Decimal(2)) for text in HOSTILE),
        wallets=tuple(AlertedWallet(text, text, 1.0, 1, 1, text, text, text, SINCE, text, text) for text in (*HOSTILE, "x" * 10_000_000)),
        position=tuple(TopicPosition(text, 1, 1) for text in HOSTILE),
    )
    return Dashboard(MADE_AT, HOSTILE[0], figures, Log((worker,), dict.fromkeys(HOSTILE, 1), HOSTILE[1]))
