"""The bare load of the bench on a real Neo4j: a ratio means something only where both sides leave the same graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import neo4j
import pytest

from infra.bench.bare_graph import MARK, load, shape
from infra.settings import Neo4jSettings
from projections.wallet_graph import WalletGraphProjection
from projections.wallet_graph_rows import frame
from tests.integration.projections.wallet_graph_log import SmallLog, apply_all

Stored = list[tuple[str, str, str, str, dict[str, Any]]]


@pytest.fixture
def driver(neo4j_settings: Neo4jSettings) -> Iterator[neo4j.Driver]:
    auth = (neo4j_settings.user, neo4j_settings.password.get_secret_value())
    with neo4j.GraphDatabase.driver(neo4j_settings.uri, auth=auth) as opened:
        yield opened


def test_the_bare_load_stores_the_nodes_and_relationships_of_the_projection(driver: neo4j.Driver, neo4j_settings: Neo4jSettings) -> None:
    database = neo4j_settings.database
    with driver.session(database=database) as session:
        session.run("MATCH (n) DETACH DELETE n").consume()
    sink = WalletGraphProjection(driver, database)
    sink.prepare()
    log = SmallLog()
    for i in range(300):
        log.send(
            f"test:{'long-address-' * (i % 2)}{i % 11}", f"test:hub{i % 3}", f"{i % 90 * 10**18}.{i:018}", asset=("ETH", "USDT")[i % 2]
        )
    log.send("test:0", "test:hub1", "99999999999999999999.999999999999999999")
    log.send("test:0", "test:hub1", "0.000000000000000001")
    log.send("test:0", "test:0", "0")
    log.send("test:0", "test:failed", "3", status="failed")
    log.send(None, "test:one-sided", "3")
    apply_all(sink, log, rows=40)
    parts = (frame(batch, "TransactionRecorded") for batch, _, _ in log.batches(40))
    load(driver, database, [shape(part) for part in parts if part is not None])

    stored = _stored(driver, database)
    ours = [row for row in stored if not row[0].startswith(MARK)]
    bare = [row for row in stored if row[0].startswith(MARK)]
    assert len(ours) > 300
    assert [_unmarked(row) for row in bare] == ours


def _stored(driver: neo4j.Driver, database: str) -> Stored:
    found: Stored = []
    for query in (
        "MATCH (w:Wallet) RETURN w.wallet_id, 'Wallet', '' AS target, '' AS key, properties(w)",
        "MATCH (a)-[r]->(b) RETURN a.wallet_id, type(r), b.wallet_id, coalesce(r.tx_id, r.asset), properties(r)",
    ):
        with driver.session(database=database) as session:
            found += sorted((tuple(row) for row in session.run(query).values()), key=lambda row: row[:4])
    return found


def _unmarked(row: tuple[str, str, str, str, dict[str, Any]]) -> tuple[str, str, str, str, dict[str, Any]]:
    def plain(value: Any) -> Any:
        return value.removeprefix(MARK) if isinstance(value, str) else value

    source, kind, target, key, properties = row
    return plain(source), kind, plain(target), plain(key), {name: plain(value) for name, value in properties.items()}
