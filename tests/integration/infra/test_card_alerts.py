"""Card alerts on real parts: the zip under AWS's own client, fed from Kafka, into Postgres and AWS' double; what goes wrong on the way."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread

import psutil
import pytest

from domain.log import NewRecord
from infra.composition import Composition
from infra.lambdas.card_alert_stores import DynamoAlerts, PostgresAlerts
from infra.lambdas.card_alerts import CARD_ALERTS, CardAlert, CardAlerts
from infra.lambdas.cards_function import GROUP, held, prepare, serve, with_threshold
from infra.lambdas.event_source import Delivered
from infra.lambdas.functions import FUNCTIONS
from infra.lambdas.kafka_source import KafkaSourceOptions
from infra.lambdas.runtime import Invocation
from infra.lambdas.serving import log_file
from projections.errors import ProjectionError, StoreUnavailable
from projections.records import seq_header
from schema_registry.contracts import SCORE_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers
from tests.unit.infra.lambdas.card_scores import CODEC, Log, Payloads, score, score_value

COUNT, EVERY = 2_000, 20  # scores, and how many of them have one alert
BAD = (b"no event", b"\x00\x00\x00\x00\x00")


class Served:
    """The function, served in a thread of this process; `calls` are the answers so far."""

    def __init__(self, log: OwnLog, threshold: float) -> None:
        self.calls: list[Invocation] = []
        self.delivered: Delivered | None = None
        self._stop = Event()
        composition = Composition(with_threshold(log.composition.settings, threshold))

        def run() -> None:
            self.delivered = serve(composition, self._stop, KafkaSourceOptions(batch_size=100), on_call=self.calls.append)

        self._thread = Thread(target=run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(180)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres", "aws"]) as found:
        yield found


def until(condition: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)


def send(log: OwnLog, first: int, count: int, bad: tuple[bytes, ...] = ()) -> None:
    """Scores of so many payments, every `EVERY`-th of them 0.9, the others 0.1; bad records in the middle."""
    codec = RecordCodec(log.composition.clients.catalog)
    values = [score_value(n, 0.9 if n % EVERY == 0 else 0.1, codec) for n in range(first, first + count)]
    values[count // 2 : count // 2] = bad
    records = [NewRecord(SCORE_EVENTS, str(at).encode(), value, (seq_header(at),)) for at, value in enumerate(values)]
    log.composition.producer.append(records)


def is_done(log: OwnLog) -> bool:
    position = log.composition.clients.admin.committed(GROUP, [SCORE_EVENTS])
    return all(position.get(place, 0) >= end for place, end in log.ends([SCORE_EVENTS]).items())


def stores(log: OwnLog) -> tuple[PostgresAlerts, DynamoAlerts]:
    settings = log.composition.settings
    return PostgresAlerts(settings.card_alerts_dsn), DynamoAlerts(log.composition.clients.aws("dynamodb"), settings.card_alerts.table)


def test_each_alert_is_in_both_stores_once_though_the_function_is_killed(log: OwnLog) -> None:
    served = Served(log, 0.5)
    try:
        send(log, 0, COUNT // 2)
        until(lambda: bool(served.calls), "a first call")
        victims = [child for child in psutil.Process().children() if any("awslambdaric" in part for part in child.cmdline())]
        assert victims
        os.kill(victims[0].pid, signal.SIGKILL)
        send(log, COUNT // 2, COUNT // 2, BAD)
        until(lambda: is_done(log), "every score is done")
    finally:
        served.stop()
    assert held(log.composition).as_json() == {"table": COUNT // EVERY, "dynamodb": COUNT // EVERY, "are_same": True}
    table, _ = stores(log)
    assert {alert.tx_seq for alert in table.latest()} == set(range(0, COUNT, EVERY))
    assert served.delivered is not None and served.delivered.records == COUNT + len(BAD)
    assert sum(call.init_ms is not None for call in served.calls) >= 1 and max(call.memory_mb for call in served.calls) < 512


def test_what_is_no_score_stands_in_quarantine_and_is_told_of(log: OwnLog) -> None:
    entries = [entry for key, entry in log.fresh().log.quarantine().items() if key[0] == CARD_ALERTS]
    assert sorted(entry.record.value or b"" for entry in entries) == sorted(BAD)
    text = log_file(log.composition.settings, FUNCTIONS[CARD_ALERTS]).read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith('{"_aws"')]
    assert sum(line["Refused"] for line in lines) >= len(BAD) and sum(line["Alerts"] for line in lines) >= COUNT // EVERY
    secret = log.composition.settings.s3.secret_key
    assert secret is not None and secret.get_secret_value() not in text


def test_after_a_restart_with_another_threshold_it_goes_on_where_it_was(log: OwnLog) -> None:
    send(log, COUNT, 100)
    served = Served(log, 0.95)
    try:
        until(lambda: is_done(log), "the scores that came meanwhile are done")
    finally:
        served.stop()
    assert served.delivered is not None and served.delivered.records == 100, "nothing was read again"
    assert held(log.composition).as_json() == {"table": COUNT // EVERY, "dynamodb": COUNT // EVERY, "are_same": True}


class Died(Exception):
    """What a test raises where the function would end."""


class DyingItems(DynamoAlerts):
    """Ends after so many puts."""

    left = 2

    def put(self, alerts: list[CardAlert]) -> int:  # type: ignore[override]
        for alert in alerts:
            if not self.left:
                raise Died
            self.left -= 1
            super().put([alert])
        return len(alerts)


def test_a_crash_between_the_two_writes_loses_nothing_and_doubles_nothing(log: OwnLog) -> None:
    prepare(log.composition)
    before = held(log.composition)
    table, items = stores(log)
    dying = DyingItems(log.composition.clients.aws("dynamodb"), log.composition.settings.card_alerts.table)
    batch = [score(n, 0.9, tx_id=f"card:crash-{n}:0") for n in range(5)]
    with pytest.raises(Died):
        CardAlerts(CODEC, 0.5, table, dying, Log(), Payloads()).handle(batch)
    assert held(log.composition).as_json() == {"table": before.table + 5, "dynamodb": before.dynamodb + 2, "are_same": False}
    again = CardAlerts(CODEC, 0.99, table, items, Log(), Payloads())  # the batch comes again, to one with another threshold
    assert (again.handle(batch).put, again.handle(batch).put) == (3, 0)
    assert held(log.composition).as_json() == {"table": before.table + 5, "dynamodb": before.dynamodb + 5, "are_same": True}
    table.close()


def test_a_dynamodb_that_forgot_everything_gets_the_table_s_alerts(log: OwnLog) -> None:
    prepare(log.composition)
    before = held(log.composition)
    log.composition.clients.aws("dynamodb").delete_table(TableName=log.composition.settings.card_alerts.table)
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        held(log.composition)
    prepare(log.composition)
    assert held(log.composition) == before and before.are_same


def test_a_table_that_is_not_there_is_told_with_what_makes_it(log: OwnLog) -> None:
    table, items = stores(log)
    prepare(log.composition)
    with table._transaction("a test") as connection:
        connection.execute("ALTER SCHEMA card_alerts RENAME TO away")
    try:
        with pytest.raises(ProjectionError, match="`tidemark cards up` makes the table"):
            CardAlerts(CODEC, 0.5, table, items, Log(), Payloads()).handle([score(1, 0.9)])
    finally:
        with table._transaction("a test") as connection:
            connection.execute("ALTER SCHEMA away RENAME TO card_alerts")
        table.close()


def test_a_postgres_that_does_not_answer_is_told(log: OwnLog) -> None:
    with pytest.raises(StoreUnavailable, match="card alerts in Postgres, keeping alerts"):
        PostgresAlerts("host=127.0.0.1 port=1 dbname=none").keep([], [("a", 1, "m")])
