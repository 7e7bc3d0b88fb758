"""What an analyst asks of the wallet graph: named Cypher with bound parameters, a time limit, and hubs cut out of
every walk.

A wallet with thousands of counterparties (an exchange) connects everything with everything; walks stop at it, but may
begin or end there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import neo4j
from neo4j.exceptions import DriverError, Neo4jError
from neo4j.graph import Node, Path, Relationship

from domain import values
from domain.errors import InvalidValue
from graph.errors import GraphUnavailable, InvalidParameter, UnknownQuery

HUB_DEGREE: Final = 200  # transactions; from here on a wallet says nothing about who sent what to whom (tried: 6 ms a path)
TIMEOUT_S: Final = 10.0
MAX_ROWS: Final = 500  # what a person can read, and a browser can draw
_FETCHED, _KEPT = (
    50,
    10,
)  # the index is approximate: of 50 found the 10 nearest were always the exact ones (10k vectors)

Value = str | int


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an investigation: its rule, what it means, and the value it takes when none is given (None: it
    must be)."""

    check: Callable[[Any], Value]
    doc: str
    default: Value | None = None


@dataclass(frozen=True, slots=True)
class Investigation:
    """A named question. `is_drawn` says that its rows are paths, made to be looked at."""

    name: str
    doc: str
    parameters: Mapping[str, Parameter]
    cypher: LiteralString
    is_drawn: bool = False
    timeout_s: float = TIMEOUT_S

    def bind(self, given: Mapping[str, Any]) -> dict[str, Value]:
        """The parameters of one call, checked and completed.

        Raises:
            InvalidParameter: one is missing, unknown or breaks its rule.
        """
        for name in given:
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise InvalidParameter(str(name)[:40], f"{self.name} has no such parameter; it takes {known}")
        bound = {}
        for name, parameter in self.parameters.items():
            value = given.get(name, parameter.default)
            if value is None:
                raise InvalidParameter(name, f"{self.name} needs it: {parameter.doc}")
            try:
                bound[name] = parameter.check(value)
            except (InvalidValue, ValueError, TypeError) as error:
                raise InvalidParameter(name, f"{parameter.doc}: {error}") from error
        return bound


def run_query(driver: neo4j.Driver, database: str, name: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Ask an investigation.

    Returns:
        A dictionary a row, of plain values: a wallet is its properties, a path its `nodes` and `relationships`.

    Raises:
        UnknownQuery: no investigation has this name.
        InvalidParameter: a parameter is missing, unknown or breaks its rule.
        GraphUnavailable: the graph does not answer within the investigation's time.
    """
    asked = investigation(name)
    bound = asked.bind(params)
    try:
        with driver.session(
            database=database,
            default_access_mode=neo4j.READ_ACCESS,
            notifications_min_severity=neo4j.NotificationMinimumSeverity.OFF,
        ) as session:
            # A dictionary, not keywords: a parameter may be called `query`.
            records = session.run(neo4j.Query(asked.cypher, timeout=asked.timeout_s), dict(bound))
            return [
                {key: _plain(record[key]) for key in record.keys()}  # noqa: SIM118 - a record iterates over its values
                for record in records
            ]
    except (DriverError, Neo4jError) as error:
        raise GraphUnavailable(f"{name}: Neo4j: {type(error).__name__}: {str(error)[:300]}") from error


def investigation(name: str) -> Investigation:
    """The investigation of this name.

    Raises:
        UnknownQuery: there is none.
    """
    found = INVESTIGATIONS.get(name)
    if found is None:
        raise UnknownQuery(f"expected one of {', '.join(INVESTIGATIONS)}, found {name[:40]!r}")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Node):
        shown = {key: _plain(item) for key, item in sorted(value.items()) if key != "embedding"}
        return {**shown, "labels": sorted(value.labels)}
    if isinstance(value, Relationship):
        return {"type": value.type, **{key: _plain(item) for key, item in sorted(value.items())}}
    if isinstance(value, Path):
        return {
            "nodes": [_plain(node) for node in value.nodes],
            "relationships": [_plain(r) for r in value.relationships],
        }
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if hasattr(value, "to_native"):
        return value.to_native()
    return value


def _whole_number(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        number = int(value)
        if not low <= number <= high:
            raise ValueError(f"expected {low} to {high}, found {number}")
        return number

    return check


def _case_id(value: Any) -> str:
    return values.identifier("case_id", value)


_WALLET: Final = Parameter(values.wallet_id, "a wallet, <network>:<address>")
_CASE: Final = Parameter(_case_id, "an alert's case")
_HUB: Final = Parameter(_whole_number(2, 10**9), "from this many transactions on a wallet is walked through no more", HUB_DEGREE)


def _limit(default: int) -> Parameter:
    return Parameter(_whole_number(1, MAX_ROWS), "how many at most", default)


def _amount(flow: str) -> str:
    """The exact sum of a flow as text: three integers side by side, since none holds 38 digits."""
    zeros = "'000000000000000000'"
    whole = f"right({zeros} + toString({flow}.sum_whole), 18)"
    head = f"CASE WHEN {flow}.sum_high = 0 THEN toString({flow}.sum_whole) ELSE toString({flow}.sum_high) + {whole} END"
    return f"{head} + '.' + right({zeros} + toString({flow}.sum_parts), 18)"


def _define(name: str, doc: str, cypher: str, *, is_drawn: bool = False, **parameters: Parameter) -> Investigation:
    # The text is made of this module's constants alone; what a caller gives is bound.
    return Investigation(name, doc, parameters, cypher.strip(), is_drawn)


_RINGS: Final = """
CALL (wallet) {
  MATCH near = (wallet)-[flow:FLOW]-(:Wallet)
  RETURN near ORDER BY flow.amount_float DESC LIMIT $limit
}
CALL (wallet, near) {
  WITH wallet, [node IN nodes(near) WHERE node <> wallet] AS others
  UNWIND others AS other
  MATCH far = (other)-[flow:FLOW]-(end:Wallet)
  WHERE other.degree < $hub_degree AND end <> wallet AND flow.amount_float > 0
  RETURN far ORDER BY flow.amount_float DESC LIMIT 2
  UNION
  WITH wallet
  RETURN null AS far
}
"""

_DEFINED: Final = (
    _define(
        "alert",
        "An alert, its wallet, whom that wallet exchanged most value with, and where this came from and went",
        "MATCH alert = (:Alert {case_id: $case_id})-[:ALERTS_ON]->(wallet:Wallet)" + _RINGS + "RETURN alert, near, far",
        is_drawn=True,
        case_id=_CASE,
        limit=_limit(12),
        hub_degree=_HUB,
    ),
    _define(
        "neighbourhood",
        "A wallet, whom it exchanged most value with, and where this came from and went",
        "MATCH (wallet:Wallet {wallet_id: $wallet_id})" + _RINGS + "RETURN near, far",
        is_drawn=True,
        wallet_id=_WALLET,
        limit=_limit(12),
        hub_degree=_HUB,
    ),
    _define(
        "follow-the-money",
        "The shortest ways on which value could go from one wallet to another, through no hub",
        """
MATCH (source:Wallet {wallet_id: $source_wallet_id}), (target:Wallet {wallet_id: $target_wallet_id})
MATCH path = SHORTEST 3 (source)
  ((from:Wallet)-[flow:FLOW]->(to:Wallet) WHERE to.degree < $hub_degree OR to.wallet_id = $target_wallet_id){1,6}
  (target)
RETURN path
""",
        is_drawn=True,
        source_wallet_id=_WALLET,
        target_wallet_id=_WALLET,
        hub_degree=_HUB,
    ),
    _define(
        "counterparties",
        "Whom a wallet exchanged most value with, each direction and asset apart, sums exact",
        f"""
MATCH (wallet:Wallet {{wallet_id: $wallet_id}})-[flow:FLOW]-(other:Wallet)
RETURN CASE WHEN startNode(flow) = wallet THEN 'to' ELSE 'from' END AS direction, other.wallet_id AS wallet_id,
  other.name AS name, other.label AS label, flow.asset AS asset, flow.transactions AS transactions,
  {_amount("flow")} AS amount, flow.first_at AS first_at, flow.last_at AS last_at, other.degree AS degree,
  other.last_score AS last_score
ORDER BY flow.amount_float DESC LIMIT $limit
""",
        wallet_id=_WALLET,
        limit=_limit(20),
    ),
    _define(
        "transactions",
        "The transactions of an alert: the one that raised it and those that joined, with amounts and scores",
        """
MATCH (alert:Alert {case_id: $case_id})
CALL (alert) {
  RETURN alert.tx_id AS tx_id, 'raised' AS part
  UNION
  MATCH (alert)-[joined:JOINED]->() RETURN joined.tx_id AS tx_id, 'joined' AS part
}
OPTIONAL MATCH (source:Wallet)-[sent:SENT {tx_id: tx_id}]->(target:Wallet)
RETURN part, tx_id, sent.occurred_at AS occurred_at, source.wallet_id AS source_wallet_id,
  target.wallet_id AS target_wallet_id, sent.amount AS amount, sent.asset AS asset, sent.status AS status,
  sent.score AS score
ORDER BY sent.seq LIMIT $limit
""",
        case_id=_CASE,
        limit=_limit(100),
    ),
    _define(
        "similar",
        "The wallets whose embeddings point most nearly the same way, by the same model",
        f"""
MATCH (wallet:Wallet {{wallet_id: $wallet_id}}) WHERE wallet.embedding IS NOT NULL
CALL db.index.vector.queryNodes('wallet_embedding', {_FETCHED}, wallet.embedding) YIELD node, score
WHERE node <> wallet AND node.embedding_model = wallet.embedding_model
RETURN node.wallet_id AS wallet_id, node.name AS name, score AS similarity, node.label AS label,
  node.last_score AS last_score, node.degree AS degree
ORDER BY score DESC LIMIT {_KEPT}
""",
        wallet_id=_WALLET,
    ),
    _define(
        "reach",
        "How far value from a wallet could have gone, through no hub: wallets by number of steps",
        """
MATCH (wallet:Wallet {wallet_id: $wallet_id})
MATCH path = SHORTEST 1 (wallet)
  ((from:Wallet)-[flow:FLOW]->(to:Wallet) WHERE from.degree < $hub_degree OR from.wallet_id = $wallet_id){1,4}
  (reached:Wallet)
WHERE reached <> wallet
RETURN length(path) AS steps, count(*) AS wallets,
  sum(CASE WHEN reached.label = 'illicit' THEN 1 ELSE 0 END) AS illicit,
  sum(CASE WHEN reached:Exchange THEN 1 ELSE 0 END) AS exchanges,
  sum(CASE WHEN reached:Alerted THEN 1 ELSE 0 END) AS alerted
ORDER BY steps
""",
        wallet_id=_WALLET,
        hub_degree=_HUB,
    ),
    _define(
        "alerts",
        "The alerts, the strongest first",
        """
MATCH (alert:Alert)-[:ALERTS_ON]->(wallet:Wallet)
RETURN alert.case_id AS case_id, wallet.wallet_id AS wallet_id, alert.reason AS reason, alert.score AS score,
  alert.status AS status, alert.known_at AS known_at, alert.explanation AS explanation,
  COUNT { (alert)-[:JOINED]->() } + 1 AS transactions
ORDER BY alert.score DESC, alert.case_id LIMIT $limit
""",
        limit=_limit(20),
    ),
)
INVESTIGATIONS: Final[Mapping[str, Investigation]] = {asked.name: asked for asked in _DEFINED}
"""Every investigation by name."""
