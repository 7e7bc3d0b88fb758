"""The road from Kinesis on real parts: the zip under AWS's own client, fed from a stream, into Kafka; and what goes wrong on the way."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from infra.lambdas.event_source import Delivered
from infra.lambdas.functions import FUNCTIONS
from infra.lambdas.kinesis_ingestion import INGESTION
from infra.lambdas.kinesis_road import KinesisWriter, letters, prepare, state
from infra.lambdas.runtime import Invocation
from infra.lambdas.serving import log_file, serve
from infra.simulator.delivery import as_json_records
from infra.simulator.generator import SimulatorOptions, simulate
from projections.quarantine import decoded, state_of
from schema_registry.contracts import COMMANDS, QUARANTINE_EVENTS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

COUNT = 3_000
BAD = [b"\x00\xffnot json", b'{"version": 9}', b"x" * (900 << 10)]


class Served:
    """The function, served in a thread of this process; `calls` are the answers so far."""

    def __init__(self, log: OwnLog) -> None:
        self.calls: list[Invocation] = []
        self.delivered: Delivered | None = None
        self._stop = Event()
        clients = log.fresh().clients

        def run() -> None:
            self.delivered = serve(FUNCTIONS[INGESTION], clients, self._stop, on_call=self.calls.append)

        self._thread = Thread(target=run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(180)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "aws"]) as found:
        prepare(found.composition.clients)
        yield found


@pytest.fixture(scope="module")
def sent(log: OwnLog) -> list[tuple[str, bytes]]:
    """What goes into the stream: good records, bad ones among them, and a hundred of the good ones twice."""
    good = [item for part in as_json_records(simulate(SimulatorOptions(count=COUNT, seed=3))) for item in part.items]
    return [*good[:1500], *[(f"bad-{n}", data) for n, data in enumerate(BAD)], *good[1500:], *good[:100]]


def until(condition: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)


def commands(log: OwnLog) -> Counter[str]:
    codec = RecordCodec(log.composition.clients.catalog)
    found: Counter[str] = Counter()
    for batch in log.fresh().log.read([COMMANDS], {}):
        found.update(codec.decode(value)[1]["tx_id"] for value in batch.values)
    return found


def test_each_transaction_is_an_event_once_and_each_bad_record_is_kept_and_told_of(log: OwnLog, sent: list[tuple[str, bytes]]) -> None:
    served = Served(log)
    try:
        KinesisWriter(log.composition.clients.aws("kinesis"), log.composition.settings.kinesis.stream).put(sent[: len(sent) // 2])
        until(lambda: bool(served.calls), "a first call")
        # A function that dies in the midst of its work: the batch comes again, to a new environment.
        victims = [child for child in psutil.Process().children() if any("awslambdaric" in part for part in child.cmdline())]
        assert victims
        os.kill(victims[0].pid, signal.SIGKILL)
        KinesisWriter(log.composition.clients.aws("kinesis"), log.composition.settings.kinesis.stream).put(sent[len(sent) // 2 :])
        until(lambda: len(commands(log)) == COUNT and state(log.composition.clients).dead_letters >= len(BAD), "all commands and letters")
    finally:
        served.stop()
    log.drive("command-handler")
    codec = RecordCodec(log.composition.clients.catalog)
    events = [codec.decode(value)[1] for batch in log.fresh().log.read([TRANSACTION_EVENTS], {}) for value in batch.values]
    wanted = {json.loads(data)["tx_id"]: json.loads(data) for key, data in sent if not key.startswith("bad-")}
    assert Counter(event["tx_id"] for event in events) == Counter(dict.fromkeys(wanted, 1))
    assert all(str(event["amount"].normalize()) for event in events)
    assert sum(call.init_ms is not None for call in served.calls) >= 1 and max(call.memory_mb for call in served.calls) < 512
    assert served.delivered is not None and served.delivered.given_up == 0


def test_bad_records_stand_in_quarantine_whole_large_ones_in_s3(log: OwnLog) -> None:
    codec = RecordCodec(log.composition.clients.catalog)
    records = [batch.record(at) for batch in log.fresh().log.read([QUARANTINE_EVENTS], {}) for at in range(len(batch))]
    entries = state_of(decoded(codec, records)).entries
    found = {(key[0], key[1], entry.reason) for key, entry in entries.items()}
    stream = f"kinesis:{log.composition.settings.kinesis.stream}"
    assert found == {(INGESTION, stream, reason) for reason in ("not_json", "unknown_version", "too_large")} and len(entries) == len(BAD)
    payloads = [
        entry.record.value if entry.stored is None else log.composition.payloads.get(entry.stored.uri) for entry in entries.values()
    ]
    assert sorted(payload or b"" for payload in payloads) == sorted(BAD)


def test_dead_letters_are_read_by_the_command_without_what_they_carry(log: OwnLog) -> None:
    names = log.composition.settings.kinesis
    found = letters(log.composition.clients, names.dead_letters, take=False)
    assert {letter["reason"] for letter in found} <= {"not_json", "unknown_version", "too_large"}
    assert not letters(log.composition.clients, names.failures, take=False)


def test_everything_was_landed_raw(log: OwnLog, sent: list[tuple[str, bytes]]) -> None:
    clients = log.composition.clients
    bucket = clients.settings.kinesis.landing
    landed: set[str] = set()
    for page in clients.aws("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", ()):
            body = clients.aws("s3").get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            text = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
            landed.update(json.loads(line).get("data", "") for line in text.splitlines())
    assert {data.decode() for key, data in sent if not key.startswith("bad-")} <= landed


def test_the_function_s_log_has_its_metrics_and_no_secret(log: OwnLog) -> None:
    text = log_file(log.composition.settings, FUNCTIONS[INGESTION]).read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith('{"_aws"')]
    assert sum(line["Refused"] for line in lines) >= len(BAD) and sum(line["Sent"] for line in lines) >= COUNT
    secret = log.composition.settings.s3.secret_key
    assert secret is not None and secret.get_secret_value() not in text


def test_it_goes_on_where_it_was_after_a_restart(log: OwnLog) -> None:
    before = sum(commands(log).values())
    served = Served(log)
    try:
        until(lambda: served._thread.is_alive() and state(log.composition.clients).shards == 2, "the mapping")
        KinesisWriter(log.composition.clients.aws("kinesis"), log.composition.settings.kinesis.stream).put([("k", _one("late"))])
        until(lambda: commands(log)["bank:late:0"] == 1, "the late record")
    finally:
        served.stop()
    assert sum(commands(log).values()) == before + 1, "nothing was read again"


@pytest.mark.parametrize("arguments", [["kinesis", "status", "--json"], ["kinesis", "letters", "--json"]])
def test_commands_print_json(log: OwnLog, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.cli import commands as _declared  # noqa: F401
    from infra.cli.app import app

    monkeypatch.setenv("TIDEMARK_STATE_DIR", str(log.stack.state.folder.parent))
    found = CliRunner().invoke(app, ["--stack", log.stack.state.folder.name, *arguments])
    assert found.exit_code == 0, found.output
    shown: Any = json.loads(found.stdout)
    assert shown["shards"] == 2 if isinstance(shown, dict) else all("payload_base64" not in letter for letter in shown)


def _one(name: str) -> bytes:
    return json.dumps(
        {
            "version": 1, "tx_id": f"bank:{name}:0", "network": "bank", "kind": "transfer", "source_wallet_id": "bank:a",
            "amount": "1", "asset": "EUR", "occurred_at": "2026-11-01T00:00:00Z",
        }
    ).encode()  # fmt: skip
