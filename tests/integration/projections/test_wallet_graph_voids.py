"""Taking back in a real Neo4j: whatever comes first, void, transaction or revision, the graph is the one that the log implies."""

from __future__ import annotations

import random

import neo4j
import pytest

from infra.settings import Neo4jSettings
from projections.errors import StoreDisagrees
from projections.protocol import Excluded
from projections.wallet_graph import WalletGraphProjection
from tests.integration.projections.wallet_graph_log import SmallLog, apply_all, everything, expected, read_back

A, B, C = "test:aaaaaaaaaaaaaaaaaaaa", "test:b", "test:c"
HUGE = "99999999999999999999.999999999999999999"


def story() -> SmallLog:
    """Sums past an int64 and failed, self-sent and one-sided transactions, voided before and after what replaced them."""
    log = everything()
    wrong = log.send(A, B, HUGE, tx_id="test:wrong:0")
    log.score(wrong, log.seq, A, B, 0.5, 0.6)
    log.void(wrong, "unit'})")
    log.send(C, B, "2", tx_id=wrong)  # the corrected mapping names another source, so it lies in another partition
    log.score(wrong, log.seq, C, B, 0.1, 0.2)
    for tx_id, source, target, status in (("fail", A, B, "failed"), ("self", C, C, "settled"), ("side", None, B, "settled")):
        log.void(log.send(source, target, "3", tx_id=f"test:{tx_id}:0", status=status), "chargeback")
    log.void(log.send(C, A, "5", tx_id="test:only:0"), "the only one of its flow")
    twice = log.send(A, B, "1", tx_id="test:twice:0")
    for amount in ("2", "3"):
        log.void(twice, f"before {amount}")
        log.send(A, B, amount, tx_id=twice)
    log.send(A, C, "8")
    return log


@pytest.mark.parametrize("seed", range(6))
def test_any_cut_and_any_order_of_topics_give_the_same_graph(sink: WalletGraphProjection, seed: int) -> None:
    log = story()
    apply_all(sink, log, rows=1 + seed * 2, seed=seed)
    excluded = Excluded()
    implied = expected(sink, log, excluded)
    assert read_back(sink) == implied
    assert {row[0] for row in implied["voided"]} == {f"test:{name}:0" for name in ("wrong", "fail", "self", "only", "twice")}
    assert len(implied["voided"]) == 6
    assert len(implied["void"]) == 7
    assert not any((row[0], row[1]) == (C, A) for row in implied["flow"])
    own = sum(len(implied[name]) for name in ("sent", "voided", "void", "score", "joined")) + 2
    assert own + sum(excluded.count_by_reason.values()) == sum(log.end().values())


def test_a_whole_run_taken_back_leaves_what_would_be_there_without_it(
    sink: WalletGraphProjection,
    driver: neo4j.Driver,
    neo4j_settings: Neo4jSettings,
) -> None:
    rng = random.Random(5)
    log, clean = SmallLog(), SmallLog()
    wallets = [f"test:w{i}" for i in range(30)]
    bad = []
    for i in range(2_000):
        source, target, amount = rng.choice(wallets), rng.choice(wallets), f"{rng.randrange(10**20)}.{rng.randrange(10**18):018d}"
        tx_id = log.send(source, target, amount)
        if i % 3 == 0:
            bad.append(tx_id)
        else:
            clean.seq = log.seq - 1
            clean.send(source, target, amount, tx_id=tx_id)
    for tx_id in bad:
        log.void(tx_id)
    apply_all(sink, log, rows=300, seed=1)
    assert read_back(sink) == expected(sink, log)
    without = expected(sink, clean)
    found = read_back(sink)
    assert found["flow"] == without["flow"]
    assert found["wallet"] == without["wallet"]
    assert len(found["sent"]) == 2_000 - len(bad)


def test_a_transaction_that_is_there_already_is_no_revision(sink: WalletGraphProjection) -> None:
    log = SmallLog()
    log.send(A, B, "1")
    (batch, before, after), *_ = log.batches(10)
    sink.apply(batch, before, after)
    with sink._session() as session:
        session.run("MATCH (c:Checkpoint) DELETE c").consume()
    with pytest.raises(StoreDisagrees, match="holds a key of this batch already"):
        sink.apply(batch, before, after)
