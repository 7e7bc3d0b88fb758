"""Read your own write: a token is answered once the store has the rows, and not a moment before."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from domain.commands import LabelWallet
from domain.errors import InvalidValue
from domain.log import NewRecord
from infra.cli import exits
from infra.cli.app import run
from infra.ingest import ingest_file
from infra.kafka.transactions import KafkaTransactions
from infra.read_your_write import NotIncludedYet, WriteToken, token_now, wait_for
from projections.work import Append
from schema_registry.contracts import COMMANDS, SCORE_EVENTS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

HEADER = "timestamp,block_number,tx_hash,from_address,to_address,value_eth,contract_address,is_error\n"
ROWS = 20


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres"]) as found:
        yield found


def file_of(folder: Path, first: int) -> str:
    rows = [f"1438920403,46275,0x{n:064x},0x{n:040x},0x{n + 1:040x},0.5,NULL,0\n" for n in range(first, first + ROWS)]
    file = folder / f"eth-{first}.csv"
    file.write_text(HEADER + "".join(rows))
    return str(file)


def facts(log: OwnLog) -> int:
    with psycopg.connect(log.composition.warehouse_dsn) as connection:
        row = connection.execute("SELECT count(*) FROM warehouse_g1.fact_transaction").fetchone()
    assert row is not None
    return int(row[0])


def test_the_warehouse_has_the_rows_once_the_token_is_answered(log: OwnLog, tmp_path: Path) -> None:
    token = ingest_file(log.composition, file_of(tmp_path, 1)).token
    assert WriteToken.parse(token).next_offset == ROWS
    with pytest.raises(NotIncludedYet, match=rf"command-handler is {ROWS} offsets behind, commands/0 stands at 0, wanted {ROWS}"):
        wait_for(token, "warehouse", 0.3, composition=log.fresh())
    log.drive("command-handler")
    with pytest.raises(NotIncludedYet, match=r"warehouse is .* offsets behind, transaction-events/"):
        wait_for(token, "warehouse", 0.3, composition=log.fresh())
    seen: list[int] = []

    def reader() -> None:
        wait_for(token, "warehouse", 60, composition=log.fresh())
        seen.append(facts(log))

    waiting = threading.Thread(target=reader)
    waiting.start()
    log.drive("warehouse")
    waiting.join(180)
    assert seen == [ROWS]
    found = wait_for(token, "warehouse", 0.5, composition=log.fresh())
    assert sum(found.position.values()) >= ROWS
    with pytest.raises(NotIncludedYet, match="archive"):
        wait_for(token, "archive", 0.3, composition=log.fresh())
    log.drive("archive")
    wait_for(token, "archive", 5, composition=log.fresh())


def test_a_duplicate_and_another_event_topic_are_waited_for_too(log: OwnLog, tmp_path: Path) -> None:
    ingest_file(log.composition, file_of(tmp_path, 1))  # nothing new comes of it
    command = LabelWallet("ethereum:0xabc", "illicit", "test", datetime.now(UTC))
    log.composition.producer.append([NewRecord(COMMANDS, b"k", RecordCodec(log.composition.clients.catalog).encode_event(command))])
    token = token_now(log.composition)
    log.drive("command-handler")
    with pytest.raises(NotIncludedYet, match="wallet-events/"):
        wait_for(token, "warehouse", 0.3, composition=log.fresh())
    log.drive("warehouse")
    wait_for(token, "warehouse", 5, composition=log.fresh())


def test_alerts_include_it_once_the_scorer_and_then_they_have_passed(log: OwnLog) -> None:
    token, admin = token_now(log.composition), log.composition.clients.admin

    def stand(name: str, topic: str) -> None:
        owner = KafkaTransactions(log.composition.clients.kafka, f"tidemark-{name}", f"tidemark-{name}", (topic,), admin)
        owner.commit((), (), log.ends([topic]))
        owner.close()

    with pytest.raises(NotIncludedYet, match=r"scorer is .* is it running"):
        wait_for(token, "scorer", 0.3, composition=log.fresh())
    stand("scorer", TRANSACTION_EVENTS)
    wait_for(token, "scorer", 5, composition=log.fresh())
    log.composition.producer.append([NewRecord(SCORE_EVENTS, b"k", b"a score")])
    with pytest.raises(NotIncludedYet, match="alerts is 1 offsets behind"):
        wait_for(token, "alerts", 0.3, composition=log.fresh())
    stand("alerts", SCORE_EVENTS)
    wait_for(token, "alerts", 5, composition=log.fresh())


def test_a_command_that_was_sent_in_a_transaction_is_waited_for_without_its_marker(log: OwnLog) -> None:
    command = LabelWallet("ethereum:0xdef", "illicit", "test", datetime.now(UTC))
    value = RecordCodec(log.composition.clients.catalog).encode_event(command)
    kafka, admin = log.composition.clients.kafka, log.composition.clients.admin
    sender = KafkaTransactions(kafka, "tidemark-test", "tidemark-test", (TRANSACTION_EVENTS,), admin)
    sender.commit([Append(COMMANDS, [b"k"], [value], [()])], (), {(TRANSACTION_EVENTS, 0): 1})
    sender.close()
    token = token_now(log.composition)
    assert token.next_offset == log.ends([COMMANDS])[COMMANDS, 0] + 1, "the marker counts as an offset"
    log.drive("command-handler")
    log.drive("warehouse")
    wait_for(token, "warehouse", 10, composition=log.fresh())


def test_a_token_of_another_log_or_of_the_future_is_refused(log: OwnLog) -> None:
    token = token_now(log.composition)
    with pytest.raises(InvalidValue, match="of the log other"):
        wait_for(WriteToken(token.next_offset, "other"), "warehouse", composition=log.composition)
    with pytest.raises(InvalidValue, match="the command topic ends at"):
        wait_for(WriteToken(token.next_offset + 1, token.log_id), "warehouse", composition=log.composition)


def test_the_command_tells_scripts_by_its_exit_status(
    log: OwnLog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIDEMARK_STATE_DIR", str(log.stack.state.folder.parent))
    monkeypatch.setenv("TIDEMARK_STACK", log.stack.state.folder.name)
    token = str(token_now(log.composition))
    assert run(["wait", token, "--for", "warehouse", "--for", "scorer", "--json"]) == exits.OK
    found = json.loads(capsys.readouterr().out)
    assert (found["included"], [item["projection"] for item in found["readers"]]) == (True, ["warehouse", "scorer"])
    log.composition.producer.append([NewRecord(COMMANDS, b"k", b"no command")])
    assert run(["wait", str(token_now(log.composition)), "--for", "warehouse", "--timeout", "0.2"]) == exits.NOT_READY
    assert re.search(r"command-handler is [12] offsets behind", capsys.readouterr().err), "one record, and the marker of a test before it"
