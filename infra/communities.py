"""Communities of wallets: groups that deal with each other more than with anybody else, and how unusual each is.

Louvain's method (Blondel, Guillaume, Lambiotte, Lefebvre 2008) as networkx has it, over who paid whom in a window of the warehouse,
weighted by the number of transactions. The seed is fixed: the same facts give the same communities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import altair as alt
import networkx as nx

from infra.report.plots import BLUE, RED, rows_of
from projections.warehouse.queries import Row

SEED = 7
LEAST_WALLETS = 3
SHOWN_MEMBERS = 5


@dataclass(frozen=True, slots=True)
class Community:
    """A group of wallets.

    Attributes:
        wallets: how many; `members` are those with the most transactions in it.
        inside: transactions between members; outside: of members with others.
        closedness: inside / (inside + outside): 1 where nobody deals with others.
        density: of all pairs of members, the share that deal with each other.
        alerted: members with an alert; lift: their share beside the share of all wallets in the window, none where nobody is alerted.
    """

    number: int
    wallets: int
    inside: int
    outside: int
    closedness: float
    density: float
    alerted: int
    lift: float | None
    members: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def communities(links: Sequence[Row]) -> list[Community]:
    """The communities of at least `LEAST_WALLETS`, those with the most alerted members first, then the largest.

    Args:
        links: rows of the query `links`: source, target, transactions, whether each is alerted.
    """
    graph = nx.Graph()
    alerted: set[str] = set()
    for source, target, transactions, source_is_alerted, target_is_alerted in links:
        before = graph.get_edge_data(source, target, {"transactions": 0})["transactions"]
        graph.add_edge(source, target, transactions=before + int(transactions))
        alerted.update(wallet for wallet, is_alerted in ((source, source_is_alerted), (target, target_is_alerted)) if is_alerted)
    if not graph:
        return []
    overall = len(alerted) / len(graph)
    # The order of nodes decides ties: by name it does not depend on how the rows came.
    ordered = nx.Graph()
    ordered.add_nodes_from(sorted(graph))
    ordered.add_weighted_edges_from(sorted(graph.edges(data="transactions")), weight="transactions")
    groups = nx.community.louvain_communities(ordered, weight="transactions", seed=SEED)
    found = [_community(ordered, group, alerted, overall) for group in groups if len(group) >= LEAST_WALLETS]
    found.sort(key=lambda one: (-one[0].alerted, -one[0].wallets, one[1]))
    return [_numbered(one, number) for number, (one, _) in enumerate(found, 1)]


def _community(graph: Any, group: set[str], alerted: set[str], overall: float) -> tuple[Community, str]:
    strength = dict.fromkeys(group, 0)
    inside = outside = links = 0
    for wallet in group:
        for other, edge in graph[wallet].items():
            if other in group:
                strength[wallet] += edge["transactions"]
                inside += edge["transactions"]
                links += 1
            else:
                outside += edge["transactions"]
    inside, links = inside // 2, links // 2  # each was met from both ends
    mine = len(group & alerted)
    members = sorted(group, key=lambda wallet: (-strength[wallet], wallet))
    community = Community(
        0, len(group), inside, outside, round(inside / (inside + outside), 4) if inside + outside else 0.0,
        round(2 * links / (len(group) * (len(group) - 1)), 4), mine, round(mine / len(group) / overall, 2) if overall else None,
        tuple(members[:SHOWN_MEMBERS]),
    )  # fmt: skip
    return community, min(group)


def _numbered(one: Community, number: int) -> Community:
    return Community(number, *(getattr(one, name) for name in Community.__slots__[1:]))


def plot(found: Sequence[Community]) -> Any:
    """Size across, closedness up, area by transactions inside; red where somebody is alerted."""
    rows = [
        {"wallets": one.wallets, "closedness": one.closedness, "inside": one.inside, "kind": "with alerts" if one.alerted else "without"}
        for one in found
    ]
    colours = alt.Scale(domain=["with alerts", "without"], range=[RED, BLUE])
    return (
        alt.Chart(
            rows_of(rows),
            title=alt.TitleParams("communities", subtitle=["one circle a community, its area by transactions inside"], anchor="start"),
        )
        .mark_circle(opacity=0.65)
        .encode(
            x=alt.X("wallets:Q", title="wallets", scale=alt.Scale(type="log"), axis=alt.Axis(format="~s")),
            y=alt.Y("closedness:Q", title="share of their transactions among themselves", scale=alt.Scale(domain=[0, 1])),
            size=alt.Size("inside:Q", legend=None, scale=alt.Scale(range=[30, 900])),
            color=alt.Color("kind:N", scale=colours, legend=alt.Legend(orient="top", title=None)),
        )
        .properties(width=640, height=320)
    )
