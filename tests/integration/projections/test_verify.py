"""The proof: green on stores that follow the log, red with the row's name once a store was altered by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer

from domain.commands import FreezeWallet, LabelWallet, ReleaseWallet
from domain.log import NewRecord
from infra.cli.log_commands import show_proof, show_ranges
from projections.verify import DROPPED, NOT_READ, Proof
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS, WALLET_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers
from tests.unit.domain.facts import AT

STORES = ("archive", "warehouse", "graph")


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    """300 simulated transactions, some wallet commands and two records of noise, projected into every store."""
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres", "neo4j"]) as log:
        codec = RecordCodec(log.composition.clients.catalog)
        wallet = "card:verify"
        asked = (LabelWallet(wallet, "illicit", "list", AT), FreezeWallet(wallet, "r", "ann", AT), ReleaseWallet(wallet, "r", "ann", AT))
        log.composition.producer.append([NewRecord(COMMANDS, b"k", codec.encode_event(command)) for command in asked])
        log.simulate(300, seed=3)
        noise = [NewRecord(TRANSACTION_EVENTS, b"k", b"\x00noise"), NewRecord(WALLET_EVENTS, b"k", b"\xff" * 40)]
        log.composition.producer.append(noise)
        with transaction(log) as aborted:
            for value in (b"never", b"was"):
                aborted.produce(WALLET_EVENTS, value, b"k")
        for name in ("warehouse", "graph", "archive"):  # what the first two put into quarantine is archived too
            log.drive(name)
        yield log


@contextmanager
def transaction(log: OwnLog) -> Iterator[Producer]:
    """A Kafka transaction that is open while the block runs and aborted afterwards."""
    producer = Producer({**log.composition.clients.kafka, "transactional.id": "test-verify"})
    producer.init_transactions(30)
    producer.begin_transaction()
    yield producer
    producer.flush(30)
    producer.abort_transaction(30)


def proofs(log: OwnLog) -> dict[str, Proof]:
    verifier = log.composition.verifier()
    found = [verifier.log(), verifier.archive(log.composition.archive())]
    found += [verifier.projection(store) for store in (log.composition.warehouse(), log.composition.graph())]
    return dict(zip(("log", *STORES), found, strict=True))


def only_red(log: OwnLog, name: str) -> str:
    """What the proof says of the one store that differs."""
    found = proofs(log)
    assert {store for store, proof in found.items() if not proof.is_ok} == {name}
    show_proof(found[name])
    return "\n".join(found[name].problems)


def test_every_store_equals_the_log_and_every_record_is_accounted_for(log: OwnLog) -> None:
    found = proofs(log)
    assert [(name, proof.problems) for name, proof in found.items() if proof.problems] == []
    assert found["log"].rows == {"transactions": 300}
    assert found["log"].excluded["without_seq"] == 1
    assert found["warehouse"].rows["fact_transaction"] == 300
    assert (found["warehouse"].quarantined, found["graph"].quarantined, found["archive"].quarantined) == (2, 2, 0)
    assert found["archive"].records == sum(found["archive"].rows.values())


def counts(proof: Proof, topic: str) -> dict[str, int]:
    """What became of a topic's offsets. Each range is whole."""
    found = {"records": 0, "markers": 0, "aborted": 0, "holes": 0}
    for one in (one for one in proof.offsets if one.topic == topic):
        assert one.until - one.first == one.records + one.markers + one.aborted + one.holes
        for name in found:
            found[name] += getattr(one, name)
    return found


def test_each_offset_up_to_the_last_stable_one_is_a_record_or_a_hole_with_a_name(log: OwnLog) -> None:
    found = proofs(log)
    heads = log.composition.log.heads([TRANSACTION_EVENTS, WALLET_EVENTS])
    for name in STORES:
        ranges = {(one.topic, one.partition): (one.first, one.until, one.head) for one in found[name].offsets}
        assert {place: ranges[place] for place in heads} == {place: (0, head, head) for place, head in heads.items()}
        wallet, transactions = counts(found[name], WALLET_EVENTS), counts(found[name], TRANSACTION_EVENTS)
        assert (wallet["aborted"], wallet["holes"], transactions["aborted"], transactions["holes"]) == (2, 0, 0, 0)
        assert transactions["records"] == 301 and transactions["markers"] >= 1 and wallet["markers"] >= 1
        assert sum(one.records for one in found[name].offsets) == found[name].records
        left_out = sum(found[name].excluded.get(reason, 0) for reason in (NOT_READ, DROPPED))
        assert found[name].records == (found[name].applied or 0) + found[name].quarantined + left_out
    assert counts(found["log"], COMMANDS)["records"] == found["log"].records
    assert json.loads(json.dumps(found["graph"].as_json()))["offsets"][0].keys() >= {
        "first",
        "until",
        "head",
        "records",
        "markers",
        "aborted",
    }


def test_the_head_is_the_last_stable_offset_while_a_transaction_is_open(log: OwnLog, capsys: pytest.CaptureFixture[str]) -> None:
    place = (WALLET_EVENTS, 0)
    before = log.composition.log.heads([WALLET_EVENTS])[place]
    with transaction(log) as pending:
        pending.produce(WALLET_EVENTS, b"not yet", b"k", partition=place[1])
        pending.flush(30)
        assert log.composition.clients.admin.written([WALLET_EVENTS])[place] == before + 1
        proof = log.composition.verifier().projection(log.composition.warehouse())
        assert proof.is_ok
        (found,) = (one for one in proof.offsets if (one.topic, one.partition) == place)
        assert (found.until, found.head) == (before, before)
    (found,) = (one for one in proofs(log)["warehouse"].offsets if (one.topic, one.partition) == place)
    assert (found.until, found.head) == (before + 2, before + 2), "the aborted record and its marker"
    show_proof(proof)
    show_ranges(proof)
    shown = capsys.readouterr().out
    assert "2 records of aborted transactions" in shown and "up to the last stable offset" in shown


def test_an_object_replaced_in_s3_makes_the_archive_red_and_names_the_record(log: OwnLog) -> None:
    s3, bucket = log.composition.clients.s3, log.composition.settings.s3.bucket
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"raw/g1/{TRANSACTION_EVENTS}/")["Contents"]
    key = listed[0]["Key"]
    kept = s3.get_object(Bucket=bucket, Key=key)
    body = kept["Body"].read()
    table = pq.read_table(io.BytesIO(body))
    offset = table["offset"][0].as_py()
    forged = table.set_column(5, "value", pa.array([b"forged", *table["value"].to_pylist()[1:]], pa.binary()))
    out = io.BytesIO()
    pq.write_table(forged, out)
    _put(s3, bucket, key, out.getvalue(), kept["Metadata"])
    try:
        said = only_red(log, "archive")
    finally:
        _put(s3, bucket, key, body, kept["Metadata"])
    assert TRANSACTION_EVENTS in said
    assert f"_offset={offset} " in said
    assert b"forged".hex() in said


def _put(s3: Any, bucket: str, key: str, body: bytes, metadata: dict[str, str]) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata=metadata)


def test_an_object_deleted_from_s3_makes_the_archive_red(log: OwnLog) -> None:
    s3, bucket = log.composition.clients.s3, log.composition.settings.s3.bucket
    key = s3.list_objects_v2(Bucket=bucket, Prefix=f"raw/g1/{TRANSACTION_EVENTS}/")["Contents"][0]["Key"]
    kept = s3.get_object(Bucket=bucket, Key=key)
    body = kept["Body"].read()
    s3.delete_object(Bucket=bucket, Key=key)
    try:
        said = only_red(log, "archive")
    finally:
        _put(s3, bucket, key, body, kept["Metadata"])
    assert "the store is behind the log by" in said


@pytest.mark.parametrize(
    ("alter", "undo"),
    [
        (
            "UPDATE warehouse_g1.fact_transaction SET amount = amount + 0.000000000000000001 WHERE tx_id = %s",
            "UPDATE warehouse_g1.fact_transaction SET amount = amount - 0.000000000000000001 WHERE tx_id = %s",
        ),
        (
            "UPDATE warehouse_g1.fact_transaction SET occurred_at = occurred_at + interval '1 microsecond' WHERE tx_id = %s",
            "UPDATE warehouse_g1.fact_transaction SET occurred_at = occurred_at - interval '1 microsecond' WHERE tx_id = %s",
        ),
    ],
    ids=["the-last-decimal", "one-microsecond"],
)
def test_a_cell_updated_in_the_warehouse_makes_it_red_and_names_the_row(log: OwnLog, alter: str, undo: str) -> None:
    with psycopg.connect(log.composition.warehouse_dsn, autocommit=True) as connection:
        row = connection.execute("SELECT tx_id FROM warehouse_g1.fact_transaction ORDER BY tx_id LIMIT 1").fetchone()
        assert row is not None
        assert connection.execute(alter.encode(), row).rowcount == 1
        try:
            said = only_red(log, "warehouse")
        finally:
            connection.execute(undo.encode(), row)
    assert "fact_transaction" in said
    assert row[0] in said


def test_a_property_set_in_the_graph_makes_it_red_and_names_the_row(log: OwnLog) -> None:
    clients, database = log.composition.clients, log.composition.settings.neo4j.database
    change = "MATCH ()-[r:SENT {tx_id: $tx_id}]->() SET r.amount = $amount"
    with clients.neo4j.session(database=database) as session:
        tx_id, amount = session.run("MATCH ()-[r:SENT]->() RETURN r.tx_id, r.amount ORDER BY r.tx_id LIMIT 1").single().values()
        session.run(change, tx_id=tx_id, amount="31337").consume()
        try:
            said = only_red(log, "graph")
        finally:
            session.run(change, tx_id=tx_id, amount=amount).consume()
    assert tx_id in said
    assert "sent" in said


def test_afterwards_everything_is_green_again(log: OwnLog) -> None:
    assert all(proof.is_ok for proof in proofs(log).values())


def test_a_store_behind_the_log_says_by_how_much(log: OwnLog) -> None:
    codec = RecordCodec(log.composition.clients.catalog)
    command = LabelWallet("card:late", "licit", "list", AT)
    log.composition.producer.append([NewRecord(WALLET_EVENTS, b"k", codec.encode("WalletLabelled", _label(command)))])
    proof = log.composition.verifier().projection(log.composition.warehouse())
    assert (proof.is_ok, proof.lag_records) == (False, 1)
    assert "the store is behind the log by 1 offsets" in proof.problems
    for name in STORES:
        log.drive(name)
    assert log.verify(log.composition.warehouse()).is_ok


def _label(command: LabelWallet) -> dict[str, Any]:
    return {"wallet_id": command.wallet_id, "label": command.label, "source": command.source, "known_at": command.known_at}
