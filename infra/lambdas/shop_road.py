"""The shop's road as one command: visits and payments by one stream, the policy's rules before and behind the log, sales and funnel."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from domain.policy import DEFAULT
from infra.clients import Clients
from infra.composition import Composition
from infra.lambdas.event_source import END, stream_id
from infra.lambdas.fraud_rules import FRAUD_RULES
from infra.lambdas.functions import FUNCTIONS
from infra.lambdas.kinesis_ingestion import INGESTION
from infra.lambdas.kinesis_road import KinesisWriter, letters, prepare, start
from infra.lambdas.serving import checkpoints_of, log_file
from infra.latency import LatencyError
from infra.log_setup import prepare_log, start_workers
from infra.policy_files import change, current, read_policy
from infra.read_your_write import token_now, wait_for
from infra.simulator.storefront import ShopOptions, ShopRecord, simulate_shop
from infra.stack import Stack
from projections.errors import StoreUnavailable
from projections.warehouse.connection import connector
from projections.warehouse.connection import run as query
from schema_registry.contracts import CASE_EVENTS

READ_MODELS = ("archive", "warehouse", "rules")
_SLICES_PER_S = 20
_WAIT_S = 180.0
_POLL_S = 0.2
_FUNNEL = (
    "SELECT sum(sessions), sum(viewed_product), sum(added_product), sum(started_checkout), sum(attempted_payment), sum(ordered)"
    " FROM warehouse.v_funnel"
)
_STEPS = ("visits", "viewed a product", "filled the basket", "went to pay", "tried to pay", "ordered")


@dataclass(frozen=True, slots=True)
class ShopReport:
    """What was put and what came of it. `caught` are paying wallets of planted fraud that the function on the stream alerted on;
    `log_alerts` are the alerts that the worker behind the log raised for wallets of this walk."""

    policy: str
    put: int
    steps: int
    payments: int
    planted: int
    caught: int
    honest_alerted: int
    alerts: int
    log_alerts: int
    by_rule: dict[str, int]
    funnel: dict[str, int]
    seconds: float
    function_log: str

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)


def run(
    stack: Stack,
    composition: Composition,
    sessions: int,
    frauds: int,
    rate: float,
    seed: int,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> ShopReport:
    """Walk the road. Safe to repeat: another seed gives other visits, the same one adds none on the same day.

    Raises:
        LatencyError: a function does not get done.
        TidemarkError: a server does not answer.
    """
    began = time.monotonic()
    prepare_log(composition)
    policy = _policy(composition, say)
    start_workers(stack, composition)
    clients = composition.clients
    prepare(clients)
    start(stack, has_rules=True)
    # Yesterday's visits, so that no record lies in the future.
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    shop = simulate_shop(ShopOptions(seed=seed, sessions=sessions, frauds=frauds, start=day))
    steps = sum(record.tx_id is None for record in shop.records)
    say(f"{len(shop.records):,} records at {rate:,.0f}/s, with {len(shop.truth)} frauds among {sessions:,} honest visits")
    _put(clients, shop.records, rate, progress)
    say("waiting for both functions")
    for name in (INGESTION, FRAUD_RULES):
        _until(lambda name=name: has_read(clients, name), f"{name} reads all of the stream")  # type: ignore[misc]
    say(f"waiting for {', '.join(READ_MODELS)}")
    token = token_now(composition)
    for name in READ_MODELS:
        wait_for(token, name, _WAIT_S, composition=composition)
    alerts = _alerts(clients, {record.tx_id for record in shop.records})
    alerted = {alert["wallet_id"] for alert in alerts}
    wait_for(token_now(composition), "warehouse", _WAIT_S, composition=composition)  # what the rules asked for is decided by then
    payers = {record.key for record in shop.records}
    raised = [record for name, record, *_ in composition.log.events(CASE_EVENTS) if name == "AlertRaised" and record["wallet_id"] in payers]
    return ShopReport(
        policy, len(shop.records), steps, len(shop.records) - steps, len(shop.truth), len(alerted & shop.truth.keys()),
        len(alerted - shop.truth.keys()), len(alerts), sum(record["reason"] == "rule" for record in raised),
        dict(Counter(rule for alert in alerts for rule in alert["rules"])), _funnel(composition), round(time.monotonic() - began, 1),
        str(log_file(composition.settings, FUNCTIONS[FRAUD_RULES])),
    )  # fmt: skip


def has_read(clients: Clients, function: str) -> bool:
    """Whether a function has got done all that the stream has, by its mapping's checkpoints.

    Raises:
        StoreUnavailable: AWS does not answer.
    """
    stream, kinesis = clients.settings.kinesis.stream, clients.aws("kinesis")
    checkpoints = checkpoints_of(clients, function)
    try:
        name = stream_id(stream, kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"])
        for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
            place = checkpoints.load(name, shard["ShardId"])
            if place == END:
                continue
            after: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
            if place is not None:
                after = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": place}
            iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard["ShardId"], **after)["ShardIterator"]
            if kinesis.get_records(ShardIterator=iterator, Limit=1)["Records"]:
                return False
    except (ClientError, BotoCoreError) as error:
        raise StoreUnavailable(f"the stream {stream} cannot be looked at: {error}") from error
    return True


def _policy(composition: Composition, say: Callable[[str], None]) -> str:
    """The policy that holds; the shop's where there was none yet."""
    held = current(composition)
    if held == DEFAULT:
        held = read_policy("shop")
        change(composition, held, "road shop")
    elif held != read_policy("shop"):
        say(f"{held.title} holds and stays; `tidemark policy set shop` would make the shop's rules hold")
    return held.title


def _put(clients: Clients, records: Sequence[ShopRecord], rate: float, progress: Callable[[int, int], None]) -> None:
    writer = KinesisWriter(clients.aws("kinesis"), clients.settings.kinesis.stream)
    size = max(1, round(rate / _SLICES_PER_S))
    started = time.monotonic()
    for at in range(0, len(records), size):
        time.sleep(max(0.0, started + at / rate - time.monotonic()))
        writer.put((record.key, record.data) for record in records[at : at + size])
        progress(min(at + size, len(records)), len(records))


def _until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not reached():
        if time.monotonic() > deadline:
            raise LatencyError(f"not within {_WAIT_S:.0f} s: {what}; `tidemark status` and the function's log say why")
        time.sleep(_POLL_S)


def _alerts(clients: Clients, tx_ids: set[str | None]) -> list[dict[str, Any]]:
    """The alerts of these transactions from the queue, each once; they are taken from it."""
    found: dict[str, dict[str, Any]] = {}
    while batch := letters(clients, clients.settings.kinesis.rule_alerts, take=True):
        found.update({alert["effect_id"]: alert for alert in batch if alert["tx_id"] in tx_ids})
    return list(found.values())


def _funnel(composition: Composition) -> dict[str, int]:
    with connector(composition.warehouse_dsn)() as connection, connection.cursor() as cursor:
        (row,) = query(cursor, _FUNNEL)
    return {name: int(count or 0) for name, count in zip(_STEPS, row, strict=True)}
