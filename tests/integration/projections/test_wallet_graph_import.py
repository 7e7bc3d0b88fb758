"""A graph that was imported from files is the very graph that transactions would have written, and goes on like it."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import neo4j
import pytest

from infra.settings import Neo4jSettings
from infra.stack import Stack, StackError
from infra.stack.neo4j_import import import_sheets
from projections.errors import StoreDisagrees, StoreUnavailable
from projections.wallet_graph import WalletGraphProjection
from projections.wallet_graph_import import GraphHistory, write_sheets
from tests.conftest import bare_settings
from tests.integration.projections.test_wallet_graph import HOSTILE
from tests.integration.projections.wallet_graph_log import SmallLog, apply_all, everything, expected, read_back

LONG = "x\"'\n" * 100_000
TEXTS = [
    "",
    " ",
    '"',
    '""',
    "'",
    "a,b;c|d",
    "\\",
    '\\"',
    "line\nline",
    "line\r\nline",
    "\r",
    "\x00",
    "a\x00b",
    "\u2028",
    "ünï 🚀",
    "null",
    "∅",
    " x ",
    LONG,
]
AMOUNTS = [
    "0", "0.000000000000000001", "0.009999999999999999", "0.01", "0.005", "0.015", "1.005", "2.675", "9999999.995", "10000000",
    "12345678.125", "123456789012345.67", "999999999999999999.5", "1000000000000000000", "99999999999999999999.999999999999999999",
]  # fmt: skip


@contextmanager
def server(stack: Stack) -> Iterator[WalletGraphProjection]:
    """Neo4j of this stack, and the sink on it."""
    stack.up(["neo4j"], is_tethered=True)
    found = stack.settings().neo4j
    try:
        with opened(found) as driver:
            graph = WalletGraphProjection(driver, found.database)
            graph.prepare()
            yield graph
    finally:
        stack.down()


def opened(settings: Neo4jSettings) -> neo4j.Driver:
    assert settings.uri is not None and settings.password is not None
    return neo4j.GraphDatabase.driver(settings.uri, auth=(settings.user, settings.password.get_secret_value()))


@pytest.fixture
def own() -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="tidemark-import-"))
    stack = Stack.of(bare_settings(folder, "import"))
    try:
        yield stack
    finally:
        stack.down()
        shutil.rmtree(folder, ignore_errors=True)


def hostile() -> SmallLog:
    """Every event, every text that breaks a careless file, and flows of every size."""
    log = everything()
    for i, wallet in enumerate(HOSTILE):
        tx_id = log.send(wallet, HOSTILE[i - 1], asset=wallet + "\n\x1b[31m", tx_id=f"{wallet}:{i}")
        log.score(tx_id, log.seq, wallet, HOSTILE[i - 1])
        log.alert(f"case {wallet}", wallet, explanation="line\nline\x1b[2J<img src=x>")
    for i, text in enumerate(TEXTS):
        wallet = f"test:text{i}"
        log.add("WalletDescribed", wallet, wallet_id=wallet, kind=text[:5], name=text, country=None, source=text)
        log.add("WalletLabelled", wallet, wallet_id=wallet, label="unknown", source=text)
        log.add("WalletFrozen", wallet, wallet_id=wallet, reason=text)
        log.alert(f"text{i}", wallet, explanation=text)
    for i, amount in enumerate(AMOUNTS):
        log.send(f"test:from{i}", f"test:to{i}", amount, asset="🚀" * 20 if i % 2 else "USD")
        log.send(f"test:twice{i}", f"test:to{i}", amount)
        log.send(f"test:twice{i}", f"test:to{i}", AMOUNTS[-i])
    dice = random.Random(7)
    for i in range(3000):
        amount = f"{dice.randrange(10 ** dice.randrange(1, 20))}.{dice.randrange(10**18):018d}"
        tx_id = log.send(f"test:s{dice.randrange(900)}", f"test:{'hub' if i % 3 else i % 97}", amount)
        if i % 2:
            log.score(tx_id, log.seq, "test:hub", f"test:s{i}", dice.random(), dice.random())
    for i, text in enumerate(TEXTS):
        tx_id = log.send(f"test:s{i}", "test:hub", AMOUNTS[i % len(AMOUNTS)], tx_id=f"test:void{i}")
        log.score(tx_id, log.seq, f"test:s{i}", "test:hub")
        log.void(tx_id, text)
        if i % 2:
            log.send(f"test:w{i}", "test:hub", "3", tx_id=tx_id)
            log.score(tx_id, log.seq, f"test:w{i}", "test:hub", 0.5, 0.25)
    for i in range(200):
        log.embed(f"test:e{i}", i, *(dice.uniform(-1, 1) * 10 ** dice.randrange(-30, 30) for _ in range(16)))
    return log


def history_of(log: SmallLog, folder: Path, rows: int = 400, seed: int = 5) -> GraphHistory:
    history = GraphHistory(folder)
    for batch, before, after in log.batches(rows, seed):
        history.apply(batch, before, after)
    return history


def imported(stack: Stack, history: GraphHistory, folder: Path, part_rows: int = 1000) -> None:
    stack.state.create()
    folder.mkdir()
    import_sheets(stack.state, write_sheets(history, folder, part_rows=part_rows), folder / "import.log")


def store(graph: WalletGraphProjection) -> Counter[tuple[Any, ...]]:
    """All that a store holds, with the types that it has them in."""
    properties = "[k IN keys({0}) | [k, valueType({0}[k]), toStringOrNull({0}[k]), {0}[k]]] AS found"
    ends = "coalesce({0}.wallet_id, {0}.case_id)"
    nodes = f"MATCH (n) RETURN '' AS type, labels(n) AS labels, '' AS end, {properties.format('n')}"
    relationships = (
        f"MATCH (a)-[r]->(b) RETURN type(r) AS type, [{ends.format('a')}] AS labels, {ends.format('b')} AS end, {properties.format('r')}"
    )
    found: Counter[tuple[Any, ...]] = Counter()
    with graph._driver.session(database=graph._database) as session:
        for query in (nodes, relationships):
            for row in session.run(query):
                held = tuple(sorted((name, kind, text, repr(value)) for name, kind, text, value in row["found"]))
                found[row["type"], tuple(sorted(row["labels"])), str(row["end"]), held] += 1
    return found


def test_the_store_is_the_one_that_transactions_write_down_to_the_type_of_each_property(own: Stack, tmp_path: Path) -> None:
    log = hostile()
    with server(own) as graph:
        apply_all(graph, log, rows=400, seed=1)
        wanted, rows = store(graph), read_back(graph)
        assert rows == expected(graph, log)
    shutil.rmtree(own.state.part_folder("neo4j"))
    imported(own, history_of(log, tmp_path / "events"), tmp_path / "sheets")
    with server(own) as graph:
        found = store(graph)
        assert sorted((wanted - found).keys(), key=str)[:3] == sorted((found - wanted).keys(), key=str)[:3] == []
        assert read_back(graph) == rows
        assert graph.load_position() == log.end()
        # It goes on where the import ended, as if it had written all of it.
        log.send("test:s1", "test:hub", "1.5")
        log.send("test:from1", "test:new", "0.1")
        apply_all(graph, log)
        assert read_back(graph) == expected(graph, log)


def test_a_log_without_events_has_no_sheets_and_a_tiny_one_is_imported(own: Stack, tmp_path: Path) -> None:
    assert write_sheets(GraphHistory(tmp_path / "none"), tmp_path) == []
    log = SmallLog()
    log.score("test:tx9:0", 9, None, None, None, None)
    imported(own, history_of(log, tmp_path / "events"), tmp_path / "sheets")
    with server(own) as graph:
        assert read_back(graph) == expected(graph, log)
        assert graph.load_position() == log.end()


def test_a_transaction_that_the_log_holds_twice_is_refused_by_name(tmp_path: Path) -> None:
    log = SmallLog()
    log.send("test:a", "test:b")
    log.send("test:c", "test:b", tx_id="test:tx0:0")
    with pytest.raises(StoreDisagrees, match="holds the transaction 'test:tx0:0' twice"):
        write_sheets(history_of(log, tmp_path / "events"), tmp_path)


def test_a_failed_import_says_the_tools_last_lines_and_where_its_log_is(own: Stack, tmp_path: Path) -> None:
    log = SmallLog()
    log.send("test:a", "test:b")
    own.state.create()
    sheets = write_sheets(history_of(log, tmp_path / "events"), tmp_path)
    flows = next(sheet for sheet in sheets if sheet.plan.file == "flows")
    flows.path.write_bytes(flows.path.read_bytes().replace(b"test:b", b"test:nobody"))
    with pytest.raises(StackError, match=r"(?s)import failed \(exit status .*its log is .*import\.log.*test:nobody") as caught:
        import_sheets(own.state, sheets, tmp_path / "import.log")
    assert "\tat " not in str(caught.value)


def test_a_full_disk_is_said_while_history_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    log = SmallLog()
    log.send("test:a", "test:b")
    monkeypatch.setattr("projections.wallet_graph_import.keep", full)
    with pytest.raises(StoreUnavailable, match=r"cannot be kept in .*No space left on device"):
        history_of(log, tmp_path / "events")
