"""One empty wallet graph a test."""

from __future__ import annotations

from collections.abc import Iterator

import neo4j
import pytest

from infra.settings import Neo4jSettings
from projections.wallet_graph import WalletGraphProjection


@pytest.fixture
def driver(neo4j_settings: Neo4jSettings) -> Iterator[neo4j.Driver]:
    auth = (neo4j_settings.user, neo4j_settings.password.get_secret_value())
    with neo4j.GraphDatabase.driver(neo4j_settings.uri, auth=auth, max_transaction_retry_time=30) as opened:
        yield opened


@pytest.fixture
def sink(driver: neo4j.Driver, neo4j_settings: Neo4jSettings) -> WalletGraphProjection:
    """On an empty graph; relationships go first: detaching a hub in one transaction runs out of memory."""
    with driver.session(database=neo4j_settings.database) as session:
        session.run("MATCH ()-[r]->() CALL (r) { DELETE r } IN TRANSACTIONS").consume()
        session.run("MATCH (n) CALL (n) { DELETE n } IN TRANSACTIONS").consume()
    graph = WalletGraphProjection(driver, neo4j_settings.database)
    graph.prepare()
    return graph
