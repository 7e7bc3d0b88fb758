"""Repair in place: what a hand has changed is what the log says again, the live worker going on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from infra.repair import position_at, repair
from projections.warehouse.sink import schema_of
from tests.integration.infra.live_log import COUNT, is_green, live_log, settle, traffic
from tests.integration.infra.own_log import OwnLog
from tests.shared_servers import SharedServers


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with live_log(shared_servers, ["kafka", "registry", "s3", "postgres"], ["warehouse"]) as found:
        yield found


DAMAGE = {
    "a changed amount": "UPDATE {s}.fact_transaction SET amount = amount + 1 WHERE seq = 100",
    "a row gone": "DELETE FROM {s}.fact_transaction WHERE seq = 101",
    "a wallet that is not": """
        WITH changed AS (UPDATE {s}.fact_transaction SET source_wallet_id = 'bank:nobody' WHERE seq = 102)
        INSERT INTO {s}.dim_wallet (wallet_id, description_number, network, kind, is_current)
        VALUES ('bank:nobody', 0, 'bank', 'unknown', true)""",
    "a dimension's row changed": """
        UPDATE {s}.dim_wallet SET kind = 'mixer'
        WHERE wallet_id = (SELECT coalesce(source_wallet_id, target_wallet_id) FROM {s}.fact_transaction WHERE seq = 103)""",
    "a row that no record gave": """
        INSERT INTO {s}.fact_wallet_control (event_type, wallet_id, reason, known_at, ingested_at, log_partition, log_offset)
        SELECT 'WalletFrozen', 'bank:nobody', 'a hand', now(), now(), partition, next_offset - 1
        FROM {s}.checkpoints WHERE topic = 'wallet-events' LIMIT 1""",
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_part_is_repaired_in_place_while_the_worker_goes_on(log: OwnLog, damage: str) -> None:
    composition = settle(log)
    schema = schema_of(composition.generations.get("warehouse", 1))
    with psycopg.connect(composition.warehouse_dsn) as connection:
        changed = connection.execute(DAMAGE[damage].format(s=schema)).rowcount
    if not changed:
        pytest.fail("the damage found nothing to damage")
    assert not is_green(log)
    before = composition.warehouse().load_position()
    with traffic(log):
        start = position_at(composition, composition.warehouse().topics, 0)
        result = repair(log.fresh(), "warehouse", start=start, end=before)
    assert result.slices >= 1 and result.written >= COUNT
    assert is_green(log)


def test_a_wallets_rows_are_repaired_and_no_others_are_touched(log: OwnLog) -> None:
    composition = settle(log)
    schema = schema_of(composition.generations.get("warehouse", 1))
    with psycopg.connect(composition.warehouse_dsn) as connection:
        row = connection.execute(f"SELECT target_wallet_id FROM {schema}.fact_transaction WHERE seq = 200").fetchone()
        assert row is not None
        wallet = row[0]
        connection.execute(f"UPDATE {schema}.fact_transaction SET target_wallet_id = 'bank:nobody', amount = 1 WHERE seq = 200")
        # One that names it now, though the log says another: it is found by its row.
        connection.execute(f"UPDATE {schema}.fact_transaction SET target_wallet_id = %s WHERE seq = 201", (wallet,))
    assert not is_green(log)
    result = repair(log.fresh(), "warehouse", start={}, wallet=wallet)
    assert 0 < result.written < COUNT
    assert is_green(log)


def test_a_time_is_found_as_the_offsets_where_it_begins(log: OwnLog) -> None:
    composition = settle(log)
    topics = composition.warehouse().topics
    assert set(position_at(composition, topics, 0).values()) == {0}
    later = int(time.time() * 1000) + 60_000
    assert position_at(composition, topics, later) == composition.clients.admin.ends(topics)


def test_a_graph_is_not_repaired_in_part_and_the_message_says_why(log: OwnLog) -> None:
    with pytest.raises(ValueError, match="sums of many records"):
        repair(log.fresh(), "graph", start={})
