"""What may be wrong around the engine: another log behind the same address, a log cut past a checkpoint, a full disk, a clock
that stepped back. Each is named, with what to do, and leaves every store as it was."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import stamina
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from domain.commands import FreezeWallet, ReleaseWallet
from domain.log import NewRecord, Position
from infra.history_source import HistoryIncomplete
from infra.ledger import SqliteLedger
from infra.seen_transactions import SeenTransactions
from projections.errors import StoreDisagrees, StoreUnavailable
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS, WALLET_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers
from tests.unit.domain.facts import AT

EVENTS, MORE = 200, 100
FILE_BYTES = 256 << 10


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres"]) as found:
        found.simulate(EVENTS, seed=3)
        found.drive("archive")
        found.drive("warehouse")
        yield found


def warehouse(log: OwnLog) -> tuple[Position, int]:
    """The checkpoint, and how many transactions stand there."""
    with psycopg.connect(log.composition.warehouse_dsn) as connection:
        row = connection.execute("SELECT count(*) FROM warehouse_g1.fact_transaction").fetchone()
    assert row is not None
    return log.fresh().warehouse().load_position(), int(row[0])


def test_a_warehouse_whose_disk_is_full_says_so_and_holds_nothing_of_the_batch(log: OwnLog) -> None:
    """The server's own answer to a full disk, raised by a trigger: SQLSTATE 53100 in the middle of the batch."""
    log.simulate(MORE, seed=4)
    before = warehouse(log)
    full = """
        CREATE FUNCTION warehouse_g1.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON warehouse_g1.fact_transaction
        FOR EACH STATEMENT EXECUTE FUNCTION warehouse_g1.full_disk();
    """
    with psycopg.connect(log.composition.warehouse_dsn, autocommit=True) as connection:
        connection.execute(full)
        stamina.set_testing(True, attempts=2)  # a full disk is tried again for a while: somebody may make room
        try:
            with pytest.raises(StoreUnavailable, match=r"the warehouse's disk is full, and nothing was kept of (?s:.*)Make room"):
                log.drive("warehouse")
        finally:
            stamina.set_testing(False)
            assert warehouse(log) == before
            connection.execute("DROP TRIGGER full_disk ON warehouse_g1.fact_transaction; DROP FUNCTION warehouse_g1.full_disk()")
    log.drive("warehouse")
    assert log.verify(log.fresh().warehouse()).is_ok


def test_commands_dated_before_earlier_ones_keep_their_order_of_arrival_over_restarts(log: OwnLog) -> None:
    codec = RecordCodec(log.composition.clients.catalog)
    wallet = "card:clock"
    for command in (FreezeWallet(wallet, "r", "ann", AT), ReleaseWallet(wallet, "r", "ann", AT - timedelta(days=400))):
        log.composition.producer.append([NewRecord(COMMANDS, wallet.encode(), codec.encode_event(command))])
        log.composition = log.fresh()
        log.drive("command-handler")
    named = [name for name, record, *_ in log.fresh().log.events(WALLET_EVENTS) if record.get("wallet_id") == wallet]
    assert named == ["WalletFrozen", "WalletReleased"]
    before = sum(log.ends([TRANSACTION_EVENTS]).values())
    log.simulate(EVENTS, seed=3, is_new=False)  # what was recorded is known whatever the clock says
    assert sum(log.ends([TRANSACTION_EVENTS]).values()) == before
    assert log.fresh().verifier().log().is_ok


def test_a_log_cut_past_a_checkpoint_is_named_and_the_store_stays_as_it_was(log: OwnLog) -> None:
    log.simulate(MORE, seed=5)
    log.drive("archive")
    before = warehouse(log)
    log.composition = log.fresh()
    _delete_records(log, log.fresh().clients.admin.ends([TRANSACTION_EVENTS]))
    with pytest.raises(HistoryIncomplete, match=r"records from \d+ on were not read before: they are in the archive. Rebuild this store"):
        log.drive("warehouse")
    assert warehouse(log) == before


def test_a_checkpoint_beyond_the_end_of_a_topic_that_was_made_anew_is_named_and_nothing_is_written(log: OwnLog) -> None:
    before = warehouse(log)
    admin = log.composition.clients.admin
    admin.delete([TRANSACTION_EVENTS])
    _until_gone(log)
    admin.create({TRANSACTION_EVENTS: 6})
    log.composition = log.fresh()
    with pytest.raises(StoreDisagrees, match=rf"{TRANSACTION_EVENTS}-\d: this store has read up to \d+, Kafka ends at 0: .*made anew"):
        log.drive("warehouse")
    with pytest.raises(StoreDisagrees, match="this store has read up to"):
        log.drive("archive")
    with pytest.raises(StoreDisagrees, match=r"If this log is the right one, remove .*command-handler: it is filled from the log again"):
        log.drive("command-handler")
    assert warehouse(log) == before


def _delete_records(log: OwnLog, up_to: Position) -> None:
    admin = AdminClient(log.composition.clients.kafka)
    for future in admin.delete_records([TopicPartition(*tp, offset) for tp, offset in up_to.items() if offset]).values():
        future.result()


def _until_gone(log: OwnLog) -> None:
    deadline = time.monotonic() + 180
    while not log.composition.clients.admin.missing([TRANSACTION_EVENTS]) and time.monotonic() < deadline:
        time.sleep(0.1)


def _in_small_files(code: str, *arguments: Path) -> str:
    """Run code in a process that may not make a file larger than `FILE_BYTES`, as on a disk that is full; what it printed."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], preexec_fn=limited, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_handler_whose_disk_is_full_says_so_and_still_knows_what_it_knew(tmp_path: Path) -> None:
    said = _in_small_files(
        """
        import sys
        from pathlib import Path
        from infra.seen_transactions import SeenTransactions
        from projections.errors import StoreUnavailable

        seen = SeenTransactions(Path(sys.argv[1]), "log")
        known = 0
        try:
            while True:
                digests = {b"t%015d" % (known + i): b"8 bytes." for i in range(500)}
                seen.add(digests, known + 500, {("transaction-events", 0): known + 500})
                known += 500
        except StoreUnavailable as error:
            print(known, error)
        """,
        tmp_path / "handler",
    )
    known, sentence = said.split(" ", 1)
    assert int(known) > 0
    assert "cannot be written" in sentence and "make room on that disk and start the handler again" in sentence
    seen = SeenTransactions(tmp_path / "handler", "log")
    assert seen.state() == (int(known), {("transaction-events", 0): int(known)})
    assert seen.digests([b"t%015d" % 0, b"t%015d" % (int(known) - 1), b"t%015d" % int(known)]) == [b"8 bytes.", b"8 bytes.", None]
    seen.add({b"t%015d" % int(known): b"8 bytes."}, int(known) + 1, {("transaction-events", 0): int(known) + 1})
    assert seen.state()[0] == int(known) + 1
    seen.close()


def test_a_ledger_whose_disk_is_full_says_so_and_still_knows_what_was_sent(tmp_path: Path) -> None:
    said = _in_small_files(
        """
        import sys
        from pathlib import Path
        from infra.ledger import SqliteLedger
        from projections.errors import StoreUnavailable

        ledger = SqliteLedger(Path(sys.argv[1]))
        sent = 0
        try:
            while True:
                ledger.mark_sent(f"effect-{sent:0200d}")
                sent += 1
        except StoreUnavailable as error:
            print(sent, error)
        """,
        tmp_path / "ledger.sqlite",
    )
    sent, sentence = said.split(" ", 1)
    assert int(sent) > 0
    assert "Make room on that disk and start the worker again" in sentence
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    assert ledger.was_sent(f"effect-{0:0200d}") and ledger.was_sent(f"effect-{int(sent) - 1:0200d}")
    ledger.mark_sent("one more")
    assert ledger.was_sent("one more")
    assert _whole(tmp_path / "ledger.sqlite")


def _whole(file: Path) -> bool:
    found: Any = sqlite3.connect(file).execute("PRAGMA integrity_check").fetchone()
    return bool(found == ("ok",))
