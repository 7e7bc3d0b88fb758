"""Each investigation on a real graph: what it finds, what it never walks through, that hostile ids stay values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import neo4j
import pytest

from graph.browser.links import query_text
from graph.errors import GraphUnavailable
from graph.investigation import INVESTIGATIONS, run_query
from infra.settings import Neo4jSettings
from projections.wallet_graph import WalletGraphProjection
from tests.integration.projections.wallet_graph_log import SmallLog, apply_all

HOSTILE = [
    "test:'}) DETACH DELETE w //",
    'test:"; MATCH (n) DETACH DELETE n; "',
    "test:\\u0027}) DETACH DELETE n //",
    "test:\\\\u0027 \\' \\",
    "test:<script>$wallet_id`{}",
]


@pytest.fixture(scope="module")
def driver(neo4j_settings: Neo4jSettings) -> Iterator[neo4j.Driver]:
    auth = (neo4j_settings.user, neo4j_settings.password.get_secret_value())
    with neo4j.GraphDatabase.driver(neo4j_settings.uri, auth=auth, max_transaction_retry_time=30) as opened:
        yield opened


@pytest.fixture(scope="module")
def database(driver: neo4j.Driver, neo4j_settings: Neo4jSettings) -> str:
    """a → b → c → d by single flows; everything touches `hub`; e stands apart; hostile wallets pay each other."""
    name = neo4j_settings.database
    with driver.session(database=name) as session:
        session.run("MATCH ()-[r]->() CALL (r) { DELETE r } IN TRANSACTIONS").consume()
        session.run("MATCH (n) CALL (n) { DELETE n } IN TRANSACTIONS").consume()
    log = SmallLog()
    first = log.send("test:a", "test:b", "10")
    second = log.send("test:a", "test:b", "0.000000000000000001")
    log.send("test:b", "test:c", "9")
    log.send("test:c", "test:d", "8")
    log.send("test:a", "test:hub", "1")
    log.send("test:hub", "test:e", "1")
    for i in range(250):
        log.send(f"test:f{i}", "test:hub", "1")
    for i, wallet in enumerate(HOSTILE):
        log.send(wallet, HOSTILE[i - 1], "1")
    log.alert("case1", "test:a", first)
    log.extend("case1", "test:a", second)
    for i, wallet in enumerate("abcd"):
        log.embed(f"test:{wallet}", 1, 1.0, 0.1 * i, 0.0, 0.0)
    sink = WalletGraphProjection(driver, name)
    sink.prepare()
    apply_all(sink, log)
    return name


def test_an_alert_is_drawn_with_its_wallet_and_two_rings(driver: neo4j.Driver, database: str) -> None:
    rows = run_query(driver, database, "alert", {"case_id": "case1"})
    drawn = {node.get("wallet_id", node.get("case_id")) for row in rows for path in row.values() for node in nodes(path)}
    assert drawn == {"case1", "test:a", "test:b", "test:c", "test:hub"}
    assert rows[0]["alert"]["nodes"][0]["labels"] == ["Alert"]
    assert "embedding" not in rows[0]["alert"]["nodes"][1]


def test_money_is_followed_through_no_hub_but_to_one(driver: neo4j.Driver, database: str) -> None:
    def ways(target: str) -> list[list[str]]:
        asked = {"source_wallet_id": "test:a", "target_wallet_id": target}
        rows = run_query(driver, database, "follow-the-money", asked)
        return [[node["wallet_id"] for node in row["path"]["nodes"]] for row in rows]

    assert ways("test:d") == [["test:a", "test:b", "test:c", "test:d"]]
    assert ways("test:hub") == [["test:a", "test:hub"]]
    assert ways("test:e") == []


def test_counterparties_have_exact_sums(driver: neo4j.Driver, database: str) -> None:
    rows = run_query(driver, database, "counterparties", {"wallet_id": "test:a"})
    assert [(row["direction"], row["wallet_id"], row["transactions"], row["amount"]) for row in rows] == [
        ("to", "test:b", 2, "10.000000000000000001"),
        ("to", "test:hub", 1, "1.000000000000000000"),
    ]


def test_an_alert_lists_its_transactions(driver: neo4j.Driver, database: str) -> None:
    rows = run_query(driver, database, "transactions", {"case_id": "case1"})
    assert [(row["part"], row["tx_id"], row["amount"]) for row in rows] == [
        ("raised", "test:tx0:0", "10"),
        ("joined", "test:tx1:0", "0.000000000000000001"),
    ]


def test_similar_wallets_come_nearest_first(driver: neo4j.Driver, database: str) -> None:
    deadline_rows = wait_for(lambda: run_query(driver, database, "similar", {"wallet_id": "test:a"}), 3)
    assert [row["wallet_id"] for row in deadline_rows] == ["test:b", "test:c", "test:d"]
    assert run_query(driver, database, "similar", {"wallet_id": "test:e"}) == []


def test_reach_counts_wallets_by_steps_and_stops_at_hubs(driver: neo4j.Driver, database: str) -> None:
    rows = run_query(driver, database, "reach", {"wallet_id": "test:a"})
    assert [(row["steps"], row["wallets"]) for row in rows] == [(1, 2), (2, 1), (3, 1)]


def test_alerts_are_listed(driver: neo4j.Driver, database: str) -> None:
    (row,) = run_query(driver, database, "alerts", {})
    assert (row["case_id"], row["wallet_id"], row["status"], row["transactions"]) == ("case1", "test:a", "alerted", 2)


@pytest.mark.parametrize("wallet", HOSTILE)
@pytest.mark.parametrize("name", ["neighbourhood", "counterparties"])
def test_a_hostile_id_is_only_a_value_bound_or_written_out(driver: neo4j.Driver, database: str, name: str, wallet: str) -> None:
    bound = run_query(driver, database, name, {"wallet_id": wallet})
    written, _, _ = driver.execute_query(query_text(name, {"wallet_id": wallet}), database_=database)  # type: ignore[arg-type]
    assert len(written) == len(bound) > 0
    assert driver.execute_query("MATCH (n:Wallet) RETURN count(n) AS n", database_=database).records[0]["n"] == 261


def test_no_investigation_can_write(driver: neo4j.Driver, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = INVESTIGATIONS["alerts"]
    writing = type(asked)("alerts", asked.doc, {}, "CREATE (n:Wallet {wallet_id: 'test:new'}) RETURN n")
    monkeypatch.setattr("graph.investigation.INVESTIGATIONS", {"alerts": writing})
    with pytest.raises(GraphUnavailable, match="alerts: Neo4j: "):
        run_query(driver, database, "alerts", {})


def test_a_query_that_runs_too_long_is_stopped(driver: neo4j.Driver, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = INVESTIGATIONS["alerts"]
    endless = "UNWIND range(1, 100000) AS a UNWIND range(1, 100000) AS b RETURN count(a * b)"
    slow = type(asked)("alerts", asked.doc, {}, endless, timeout_s=0.5)
    monkeypatch.setattr("graph.investigation.INVESTIGATIONS", {"alerts": slow})
    with pytest.raises(GraphUnavailable, match="alerts: Neo4j: ") as caught:
        run_query(driver, database, "alerts", {})
    assert caught.value.__cause__ is not None


def nodes(path: dict[str, Any] | None) -> list[dict[str, Any]]:
    return path["nodes"] if path else []


def wait_for(ask: Any, rows: int, timeout_s: float = 60.0) -> list[dict[str, Any]]:
    """The vector index follows a commit by a moment."""
    import time

    deadline = time.monotonic() + timeout_s
    while len(found := ask()) < rows and time.monotonic() < deadline:
        time.sleep(0.05)
    return found  # type: ignore[no-any-return]
