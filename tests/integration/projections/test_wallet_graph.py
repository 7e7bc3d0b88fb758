"""The wallet graph on a real Neo4j: atomic, fenced, repeatable, equal to the log however it is cut."""

from __future__ import annotations

import threading
import time

import neo4j
import pytest

from domain.log import Position, TopicPartition
from projections import wallet_graph
from projections.errors import StalePosition, StoreDisagrees, StoreUnavailable
from projections.fingerprint import fingerprints
from projections.protocol import EventBatch, Excluded
from projections.wallet_graph import WalletGraphProjection
from projections.wallet_graph_statements import MERGE_WALLETS, Statement
from tests.integration.projections.wallet_graph_log import SmallLog, apply_all, everything, expected, read_back

HOSTILE = [
    "test:'}) DETACH DELETE w //",
    'test:"; MATCH (n) DETACH DELETE n; "',
    "test:<script>alert(1)</script>",
    "test:$rows`{} \\' \\u0027",
    "test:=cmd|' /C calc'!A0",
    "test:[red]rich[/red] ünïcödé 🚀",
]
HUB_TRANSACTIONS = 100_000


def test_every_event_gives_the_rows_that_the_log_implies(sink: WalletGraphProjection) -> None:
    log = everything()
    apply_all(sink, log)
    excluded = Excluded()
    implied = expected(sink, log, excluded)
    assert read_back(sink) == implied
    assert sink.load_position() == log.end()
    assert {name: len(rows) for name, rows in implied.items()} == {
        "wallet": 5, "sent": 6, "score": 4, "flow": 3, "alert": 3, "joined": 1,
    }  # fmt: skip
    records = sum(log.end().values())
    own = sum(len(implied[name]) for name in ("sent", "score", "joined")) + 2  # two alerts were raised
    assert own + sum(excluded.count_by_reason.values()) == records
    assert [excluded.count_by_reason[f"no_{side}"] for side in ("source_wallet", "target_wallet", "wallets")] == [
        1,
        1,
        1,
    ]


def test_sums_past_an_int64_stay_exact(sink: WalletGraphProjection) -> None:
    apply_all(sink, everything(), rows=1)
    flow = next(row for row in read_back(sink)["flow"] if row[0] == "test:aaaaaaaaaaaaaaaaaaaa")
    # Twice 99999999999999999999.999999999999999999 and one part: 38 digits each.
    assert flow[3:5] == ("3", "199999999999999999999999999999999999999")


@pytest.mark.parametrize("seed", range(4))
def test_any_cut_and_any_order_of_partitions_give_the_same_graph(sink: WalletGraphProjection, seed: int) -> None:
    log = everything()
    apply_all(sink, log, rows=1 + seed * 2, seed=seed)
    assert read_back(sink) == expected(sink, log)


def test_the_same_batch_twice_is_refused_and_doubles_nothing(sink: WalletGraphProjection) -> None:
    log = everything()
    for batch, before, after in log.batches(1000):
        sink.apply(batch, before, after)
        with pytest.raises(StalePosition, match="another worker has written"):
            sink.apply(batch, before, after)
    assert read_back(sink) == expected(sink, log)
    assert sink.retries == 0


def test_a_crash_before_the_commit_leaves_neither_rows_nor_checkpoint(sink: WalletGraphProjection, monkeypatch: pytest.MonkeyPatch) -> None:
    log = everything()

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("projections.wallet_graph._place_scores", crash)
        for batch, before, after in log.batches(1000, topics=("transaction-events",)):
            with pytest.raises(KeyboardInterrupt):
                sink.apply(batch, before, after)
    assert sink.load_position() == {}
    assert read_back(sink) == {}
    apply_all(sink, log)
    assert read_back(sink) == expected(sink, log)


def test_of_two_writers_from_the_same_position_one_wins(sink: WalletGraphProjection) -> None:
    log = SmallLog()
    for i in range(300):
        log.send("test:a", f"test:w{i % 7}")
    (batch, before, after), *_ = log.batches(1000)
    outcomes: list[str] = []

    def write() -> None:
        try:
            sink.apply(batch, before, after)
            outcomes.append("written")
        except StalePosition:
            outcomes.append("stale")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["stale"] * 3 + ["written"]
    assert read_back(sink) == expected(sink, log)


def test_an_owner_that_stands_still_in_its_transaction_is_ended_by_the_server(
    sink: WalletGraphProjection, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = everything()
    *first, (batch, before, after) = log.batches(4)
    for earlier in first:  # a server that has seen no statement yet takes seconds for each
        sink.apply(*earlier)
    stands, go_on = threading.Event(), threading.Event()
    failures: list[Exception] = []

    def standing_still(step: str) -> None:
        if threading.current_thread().name == "frozen":
            stands.set()
            assert go_on.wait(180)

    def frozen() -> None:
        try:
            sink.apply(batch, before, after)
        except Exception as error:  # looked at below
            failures.append(error)

    monkeypatch.setattr(wallet_graph, "reach", standing_still)
    monkeypatch.setattr(wallet_graph, "TRANSACTION_TIMEOUT_S", 8.0)  # time enough to get that far
    owner = threading.Thread(target=frozen, name="frozen")
    owner.start()
    assert stands.wait(180), failures
    monkeypatch.setattr(wallet_graph, "TRANSACTION_TIMEOUT_S", 60.0)
    sink.apply(batch, before, after)  # waits for the checkpoint until the server has ended the other transaction
    go_on.set()
    owner.join()
    assert [type(error) for error in failures] == [StoreUnavailable]
    with pytest.raises(StalePosition):
        sink.apply(batch, before, after)
    assert read_back(sink) == expected(sink, log)


def test_deadlocks_of_two_writers_on_hubs_are_retried_and_never_seen(sink: WalletGraphProjection, driver: neo4j.Driver) -> None:
    """100,000 transactions, half of them with one of three hubs, each writer with the partitions that the other has not."""
    log = SmallLog()
    for i in range(HUB_TRANSACTIONS):
        log.send(f"test:s{i % 7001}", f"test:{f'hub{i % 3}' if i % 2 else i % 997}", f"{i}.000000000000000001")
    for i in range(0, HUB_TRANSACTIONS, 50):
        log.score(f"test:tx{i}:0", i, f"test:s{i % 7001}", f"test:hub{i % 3}")
    by_writer: list[list[tuple[EventBatch, Position, Position]]] = [[], []]
    for cut in log.batches(2500, seed=1):
        by_writer[next(iter(cut[2]))[1] % 2].append(cut)
    failures: list[BaseException] = []
    writers = [WalletGraphProjection(driver, sink._database) for _ in by_writer]

    def write(writer: WalletGraphProjection, cuts: list[tuple[EventBatch, Position, Position]]) -> None:
        try:
            for batch, before, after in cuts:
                writer.apply(batch, before, after)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=pair) for pair in zip(writers, by_writer, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(writer.retries >= 0 for writer in writers)
    assert fingerprints(sink.read_back()) == fingerprints(sink.expected(log.whole(), Excluded()))


def test_a_deadlock_with_another_session_is_retried_and_counted(
    sink: WalletGraphProjection, driver: neo4j.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sink holds `a` and wants `b`; the other holds `b` and waits for `a`."""
    log = SmallLog()
    log.add("WalletDescribed", "test:a", wallet_id="test:a", kind="unknown", name="a", country=None, source="list")
    log.send("test:b", "test:c")
    batch, after = EventBatch({}), dict[TopicPartition, int]()
    for piece, _, reached in log.batches(10):
        batch, after = EventBatch({**batch.tables, **piece.tables}), {**after, **reached}
    lock = "MERGE (w:Wallet {wallet_id: $id}) SET w.degree = coalesce(w.degree, 0)"
    driver.execute_query("CREATE (:Wallet {wallet_id: 'test:b', network: 'test', caption: 'b', degree: 0})", database_=sink._database)
    original, lost, others = wallet_graph._run, [], list[threading.Thread]()

    def cross(session: neo4j.Session, tx: neo4j.Transaction) -> None:
        with session:
            try:
                tx.run(lock, id="test:a").consume()
                tx.commit()
            except neo4j.exceptions.TransientError as error:
                lost.append(error)

    def run(tx: neo4j.ManagedTransaction, statement: Statement, rows: list[list[object]]) -> None:
        original(tx, statement, rows)
        if statement is MERGE_WALLETS and not others:
            session = driver.session(database=sink._database)
            other = session.begin_transaction()
            other.run(lock, id="test:b").consume()
            others.append(threading.Thread(target=cross, args=(session, other)))
            others[0].start()
            wait_until_blocked(driver)

    monkeypatch.setattr(wallet_graph, "_run", run)
    sink.apply(batch, {}, after)
    others[0].join()
    assert sink.retries + len(lost) == 1, "one of the two had to give way"
    assert sink.load_position() == after
    monkeypatch.undo()
    found = read_back(sink)
    assert [row[0] for row in found["sent"]] == ["test:tx0:0"]
    assert found == expected(sink, log)


def wait_until_blocked(driver: neo4j.Driver) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        found = driver.execute_query("SHOW TRANSACTIONS YIELD status WHERE status STARTS WITH 'Blocked' RETURN count(*) AS n")
        if found.records[0]["n"]:
            return
        time.sleep(0.05)
    raise AssertionError("nothing waits for a lock")


def test_a_passing_error_of_the_server_is_retried_as_a_whole_and_counted(
    sink: WalletGraphProjection, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SmallLog()
    log.send("test:a", "test:b")
    errors = [neo4j.exceptions.TransientError("deadlock detected")]

    def fail_once(*_: object) -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr("projections.wallet_graph._place_scores", fail_once)
    apply_all(sink, log)
    assert sink.retries == 1
    assert read_back(sink) == expected(sink, log)


def test_an_altered_relationship_is_found(sink: WalletGraphProjection, driver: neo4j.Driver) -> None:
    log = everything()
    apply_all(sink, log)
    for change in (
        "MATCH ()-[r:SENT {tx_id: 'test:tx2:0'}]->() SET r.amount = '0.000000000000000002'",
        "MATCH ()-[f:FLOW]->() WITH f LIMIT 1 SET f.sum_parts = f.sum_parts + 1",
        "MATCH (w:Wallet) WHERE w.embedding IS NOT NULL WITH w LIMIT 1 SET w.embedding = [1.0, 2.0, 3.0, 4.0]",
        "MATCH ()-[r:SENT]->() WITH r LIMIT 1 DELETE r",
    ):
        before = read_back(sink)
        driver.execute_query(change, database_=sink._database)
        assert read_back(sink) != before, change
    assert read_back(sink) != expected(sink, log)


def test_hostile_text_is_only_text(sink: WalletGraphProjection) -> None:
    log = SmallLog()
    for i, wallet in enumerate(HOSTILE):
        tx_id = log.send(wallet, HOSTILE[i - 1], asset=wallet + "\n\x1b[31m", tx_id=f"{wallet}:{i}")
        log.score(tx_id, i, wallet, HOSTILE[i - 1])
        log.alert(f"case {wallet}", wallet, explanation="line\nline\x1b[2J<img src=x>")
        log.add(
            "WalletDescribed",
            wallet,
            wallet_id=wallet,
            kind="unknown",
            name=wallet[5:] + "\n",
            country=None,
            source="'",
        )
    assert all(not sink.screen(batch) for batch in log.whole())
    apply_all(sink, log)
    assert read_back(sink) == expected(sink, log)
    assert len(read_back(sink)["wallet"]) == len(HOSTILE)


def test_an_older_score_never_hides_a_newer_one(sink: WalletGraphProjection) -> None:
    log = SmallLog()
    log.send("test:a", "test:b")
    log.send("test:c", "test:b")
    log.score("test:tx1:0", 1, "test:c", "test:b", 0.1, 0.9)
    log.score("test:tx0:0", 0, "test:a", "test:b", 0.1, 0.2)
    apply_all(sink, log, rows=1, seed=3)
    scored = next(row for row in read_back(sink)["wallet"] if row[0] == "test:b")
    assert scored[12:14] == ("0.9", "1")


def test_a_transaction_that_the_graph_holds_already_stops_the_worker(sink: WalletGraphProjection, driver: neo4j.Driver) -> None:
    log = SmallLog()
    log.send("test:a", "test:b")
    apply_all(sink, log)
    driver.execute_query("MATCH (c:Checkpoint) DELETE c", database_=sink._database)
    with pytest.raises(StoreDisagrees, match="Verify the log, then rebuild"):
        apply_all(sink, log)


def test_a_dead_server_is_unavailable_with_its_cause() -> None:
    with neo4j.GraphDatabase.driver(
        "bolt://127.0.0.1:1", auth=("neo4j", "x"), max_transaction_retry_time=0.5, connection_timeout=1
    ) as driver:
        sink = WalletGraphProjection(driver, "wallets")
        log = everything()
        calls = [sink.load_position, sink.prepare, lambda: list(sink.read_back()), lambda: apply_all_unread(sink, log)]
        for call in calls:
            with pytest.raises(StoreUnavailable, match="Neo4j: ") as caught:
                call()
            assert isinstance(caught.value.__cause__, neo4j.exceptions.ServiceUnavailable)


def apply_all_unread(sink: WalletGraphProjection, log: SmallLog) -> None:
    for batch, before, after in log.batches(1000):
        sink.apply(batch, before, after)
