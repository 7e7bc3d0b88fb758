"""Communities: groups that deal among themselves, the same however their links come; and answers drawn into files."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from domain.errors import InvalidValue
from infra.communities import communities, plot
from infra.dashboards.query_plots import PLOTS, plot_of, write_plot
from projections.warehouse.queries import Answer, query_of

RING = [(f"e:r{i}", f"e:r{(i + 1) % 4}", 5, int(i == 0), int(i == 3)) for i in range(4)]
CLIQUE = [(f"e:c{i}", f"e:c{j}", 3, 0, 0) for i in range(5) for j in range(i)]
BRIDGE: list[tuple[Any, ...]] = [("e:r1", "e:c1", 1, 0, 0), ("e:x", "e:y", 50, 0, 0)]
DAY = datetime(2026, 3, 1, tzinfo=UTC)


def test_groups_are_found_with_how_closed_and_how_alerted_they_are() -> None:
    ring, clique = communities([*RING, *CLIQUE, *BRIDGE])
    assert (ring.wallets, ring.inside, ring.outside, ring.alerted) == (4, 20, 1, 1) and ring.number == 1
    assert ring.closedness == round(20 / 21, 4) and ring.density == round(4 / 6, 4)
    assert ring.lift == round((1 / 4) / (1 / 11), 2), "one of eleven wallets is alerted, one of these four"
    assert (clique.wallets, clique.inside, clique.density, clique.alerted, clique.lift) == (5, 30, 1.0, 0, 0.0)
    assert clique.members[0] == "e:c0" and len(communities([])) == 0, "a pair is no community"


def test_the_order_of_the_links_changes_nothing() -> None:
    links = [*RING, *CLIQUE, *BRIDGE]
    shuffled = random.Random(3).sample(links, len(links))
    assert communities(shuffled) == communities(links)


ANSWERS: dict[str, tuple[tuple[str, ...], tuple[Any, ...]]] = {
    "wallet-flows": (
        ("day", "counterparty_id", "asset", "amount_in", "amount_out", "transactions"), (DAY, "e:b", "ETH", Decimal(3), Decimal(0), 1)
    ),
    "trading-volume": (("day", "asset", "trades", "amount", "worth", "unpriced"), (DAY, "ETH", 2, Decimal(4), Decimal(500), 1)),
    "hubs": (("wallet_id", "counterparties", "transactions", "sent", "received", "share"), ("e:<b>", 13, 13, 1, 12, 0.4)),
    "sudden-growth": (
        ("wallet_id", "transactions", "before", "per_hour", "per_hour_before", "times_as_many"), ("e:\x1b[31m", 21, 1, 0.9, 0.1, 9.0)
    ),
    "fan-in": (("wallet_id", "asset", "senders", "transactions", "amount"), ("e:b", "ETH", 12, 12, Decimal(9))),
}  # fmt: skip


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_each_plot_is_a_picture_and_hostile_text_stays_text(name: str, ending: str, tmp_path: Path) -> None:
    columns, row = ANSWERS[name]
    chart = plot_of(name, Answer(columns, [row], {"quote": "USD", "wallet_id": "e:<script>"}))
    write_plot(chart, tmp_path / f"p{ending}")
    data = (tmp_path / f"p{ending}").read_bytes()
    if ending == ".png":
        assert data.startswith(b"\x89PNG")
    else:
        assert data.startswith(b"<svg") and b"<script>" not in data and b"\x1b" not in data


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    assert set(PLOTS) == set(ANSWERS)
    with pytest.raises(InvalidValue, match="case-ageing has no plot"):
        plot_of("case-ageing", Answer(("x",), [(1,)], {}))
    with pytest.raises(InvalidValue, match="nothing to draw"):
        plot_of("hubs", Answer(ANSWERS["hubs"][0], [], {}))
    with pytest.raises(InvalidValue, match=r"\.png or \.svg"):
        write_plot(plot(communities(RING)), tmp_path / "p.jpg")
    write_plot(plot(communities(RING)), tmp_path / "p.png")
    assert all(query_of(name) for name in PLOTS)
