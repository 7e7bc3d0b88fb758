"""Replays on a real log: the same twice, equal to what was scored live, and nothing of it in the log itself."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from domain.commands import LabelWallet, VoidTransaction
from domain.log import NewRecord
from domain.policy import Policy
from domain.prices import AssetPriced
from infra.batch_sources import SourceIncomplete
from infra.cli import exits
from infra.cli.context import Context
from infra.cli.replay_command import replay as replay_command
from infra.composition import NotReady
from infra.policy_files import read_policy
from infra.replay.errors import ReplayError
from infra.replay.run import NO_SCORES, ReplayRequest, ReplayResult, replay
from infra.replay.sandbox import PREFIX
from infra.replay.schemes import read_schemes
from infra.replay.strategy import load_strategy
from infra.settings import Settings
from infra.simulator.generator import SimulatorOptions, simulate
from schema_registry.contracts import CASE_EVENTS, COMMANDS, PARTITIONS, PRICE_EVENTS, SCORE_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.e2e.small_model import deploy_small_model, train_small_model
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

COUNT, SEED, VOIDED = 1_200, 3, 40
START = datetime(2023, 1, 2, tzinfo=UTC)
FAN_IN = """- {typology: fan_in, at: 30%, every: 12h, within: 1h, count: 3, wallets: 12, size: 3, asset: ETH}
- {typology: cycle, at: 60%, within: 2h, wallets: 5}
"""
POLICY = """name: many
version: 1
alerts: {budget: 0.02, floor: 0.0, window: 2000, warm_up: 100}
rules:
  - name: fan_in
    says: "{count} paid {target_wallet_id}"
    accuses: target_wallet_id
    per: target_wallet_id
    within: 2h
    distinct: source_wallet_id
    distinct_at_least: 8
"""
ROUNDTRIP = """
class Strategy:
    name, cash, fee_bps = "roundtrip", 1000, 100
    def on_price(self, asset, price, book):
        if asset == "ETH" and not book.holding("ETH"):
            book.buy("ETH", 1)
        elif asset == "ETH":
            book.sell("ETH", 1)
    def on_transaction(self, transaction, score, book):
        assert 0 <= score <= 1 and transaction["amount"] >= 0
        if book.price("DOGE") is None:
            book.buy("DOGE", 1)
"""


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    """Scored live; labels, prices and a transaction that was taken back; all of it archived."""
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres", "aws"]) as found:
        composition = found.composition
        deploy_small_model(found)
        found.simulate(COUNT, seed=SEED)
        found.drive("scorer")
        truth = simulate(SimulatorOptions(count=COUNT, seed=SEED))
        codec = RecordCodec(composition.clients.catalog)
        now = datetime.now(UTC)
        commands: list[Any] = [LabelWallet(wallet, label, "truth", now) for wallet, label in truth.labels.items()]
        commands.append(VoidTransaction(truth.table["tx_id"][VOIDED].as_py(), None, "test", None, "test", now))
        composition.producer.append([NewRecord(COMMANDS, b"k", codec.encode_event(command)) for command in commands])
        prices = [AssetPriced("ETH", "USD", Decimal(100 + day), "test", START + timedelta(days=day)) for day in range(4)]
        prices.append(AssetPriced("ETH", "EUR", Decimal(7), "test", START))
        composition.producer.append([NewRecord(PRICE_EVENTS, b"ETH", codec.encode_event(price)) for price in prices])
        found.drive("command-handler")
        found.drive("archive")
        found.composition = found.fresh()
        yield found


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    file = tmp_path_factory.mktemp("policy") / "many.yaml"
    file.write_text(POLICY)
    return read_policy(str(file))


def request_of(folder: Path, **given: Any) -> ReplayRequest:
    (folder / "schemes.yaml").write_text(FAN_IN)
    (folder / "roundtrip.py").write_text(ROUNDTRIP)
    strategies = (load_strategy(folder / "roundtrip.py"),)
    return ReplayRequest(schemes=read_schemes(folder / "schemes.yaml"), strategies=strategies, **given)


def is_green(log: OwnLog) -> bool:
    """Whether log and archive prove right, as `tidemark verify` does it."""
    composition = log.fresh()
    verifier = composition.verifier()
    return verifier.log().is_ok and verifier.archive(composition.archive()).is_ok


def run(log: OwnLog, folder: Path, request: ReplayRequest) -> ReplayResult:
    return replay(log.fresh(), request, folder=folder)


def test_the_same_replay_twice_at_any_speed_has_the_same_outcome_and_the_log_sees_nothing(
    log: OwnLog, policy: Policy, tmp_path: Path
) -> None:
    assert is_green(log)
    before, topics = log.ends(tuple(PARTITIONS)), set(log.composition.clients.admin.names(""))
    request = request_of(tmp_path, policies=(policy, read_policy("standard")), scale=2)
    first = run(log, tmp_path, request)
    days = (datetime.fromisoformat(first.outcome["end"]) - datetime.fromisoformat(first.outcome["start"])) / timedelta(days=1)
    second = run(log, tmp_path, replace(request, speed=days * 86_400 / 4))
    assert first.outcome == second.outcome and first.outcome_sha256 == second.outcome_sha256 and first.run_id == second.run_id
    assert second.measured["seconds"] > 3, "four seconds at its pace"
    assert log.ends(tuple(PARTITIONS)) == before and is_green(log)
    assert set(log.composition.clients.admin.names("")) == topics, "the sandbox is gone"
    outcome = first.outcome
    assert outcome["schemes"] == 4 and outcome["taken_back"] == 1
    assert outcome["transactions"] == 2 * (COUNT - 1) + outcome["injected"]
    many, standard = outcome["variants"]
    assert many["by_rule"]["fan_in"] >= 3, "each planted fan-in is spoken of"
    assert many["true_alerts"] >= 3 and many["alerts"] == many["true_alerts"] + many["false_alarms"] + many["alerts_without_label"]
    assert sum(map(sum, many["over_time"].values())) == many["alerts"]
    assert many["policy"] == "many@1" and standard["policy"].startswith("standard@")
    assert 0 < many["prevented"]["transactions"] < many["at_stake"]["transactions"]
    assert Decimal(many["prevented"]["in_quote"]) <= Decimal(many["at_stake"]["in_quote"])
    assert second.measured["latency"]["n"] == outcome["transactions"] and first.measured["latency"] is None
    assert first.learned_from == [], "the small model learned from another log"


def test_without_planting_it_scores_what_was_scored_live(log: OwnLog, tmp_path: Path) -> None:
    # Up to the transaction that was taken back: from there on the features leave it out.
    result = replay(log.fresh(), ReplayRequest(until=VOIDED, is_kept=True), folder=tmp_path)
    composition = log.fresh()

    def scores(topic: str) -> dict[str, Any]:
        return {r["tx_id"]: (r["score"], r["features"]) for _, r, *_ in composition.log.events(topic) if r["tx_seq"] < VOIDED}

    (topic,) = (topic for topic in result.topics if topic.endswith(SCORE_EVENTS))
    try:
        assert len(scores(topic)) == VOIDED and scores(topic) == scores(SCORE_EVENTS)
    finally:
        composition.clients.admin.delete(result.topics)


def test_a_part_of_history_has_the_features_of_all_before_it(log: OwnLog, tmp_path: Path) -> None:
    whole = replay(log.fresh(), ReplayRequest(is_kept=True), folder=tmp_path)
    part = replay(log.fresh(), ReplayRequest(since=700, until=900, is_kept=True), folder=tmp_path)
    composition = log.fresh()
    try:
        found = [
            {r["tx_id"]: r["score"] for _, r, *_ in composition.log.events(topic)}
            for result in (whole, part) for topic in result.topics if topic.endswith(SCORE_EVENTS)
        ]  # fmt: skip
        assert len(found[1]) == 200 and found[1].items() <= found[0].items()
    finally:
        composition.clients.admin.delete([*whole.topics, *part.topics])


def test_times_bound_it_by_when_transactions_occurred(log: OwnLog, tmp_path: Path) -> None:
    since, until = START + timedelta(days=30), START + timedelta(days=60)
    result = run(log, tmp_path, ReplayRequest(since=since, until=until, models=(NO_SCORES,)))
    assert since <= datetime.fromisoformat(result.outcome["start"]) < datetime.fromisoformat(result.outcome["end"]) <= until
    assert result.outcome["transactions"] == result.inputs["until_seq"] - result.inputs["from_seq"] > 50
    assert result.measured["latency"] is None and result.outcome["variants"][0]["model"] is None


def test_a_strategy_fills_at_prices_as_of_the_moment_and_its_profit_is_exact(log: OwnLog, tmp_path: Path) -> None:
    (traded,) = run(log, tmp_path, request_of(tmp_path)).outcome["strategies"]
    # Bought at 101, 103 (the price of the first day came with the start), sold at 102; one percent a fill.
    assert traded["failed"] is None and traded["filled"] == 3
    assert Decimal(traded["fees"]) == Decimal("3.06") and Decimal(traded["profit"]) == Decimal("1.00") - Decimal("3.06")
    assert traded["refused"]["no price is known"] > 100


def test_two_models_are_compared(log: OwnLog, tmp_path: Path) -> None:
    other = train_small_model(log, seed=2)
    result = run(log, tmp_path, ReplayRequest(models=("deployed", other), until=300))
    assert [one["model"] for one in result.outcome["variants"]][1] == other
    assert len({one["model"] for one in result.outcome["variants"]}) == 2


def test_what_cannot_be_replayed_is_refused_before_anything_is_made(log: OwnLog, tmp_path: Path) -> None:
    before = log.composition.clients.admin.names("")
    for request, error, says in (
        (ReplayRequest(since=COUNT), ReplayError, "no range|none"),
        (ReplayRequest(models=("m-none",)), NotReady, "no model m-none"),
        (ReplayRequest(models=("deployed", "none")), ReplayError, "none alone"),
        (ReplayRequest(scale=0), ReplayError, "scale"),
        (request_of(tmp_path, until=datetime(2023, 1, 2, 6, tzinfo=UTC)), ReplayError, "schemes"),
    ):
        with pytest.raises(error, match=says):
            run(log, tmp_path, request)
    assert log.composition.clients.admin.names("") == before


def test_a_strategy_that_throws_stops_alone(log: OwnLog, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("class Strategy:\n    def on_transaction(self, transaction, score, book):\n        return 1 / 0\n")
    request = replace(request_of(tmp_path), strategies=(load_strategy(tmp_path / "bad.py"), load_strategy(tmp_path / "roundtrip.py")))
    result = run(log, tmp_path, request)
    assert result.failed == ["bad: ZeroDivisionError: division by zero (line 3, in on_transaction)"]
    assert result.outcome["strategies"][1]["filled"] == 3 and result.outcome["variants"][0]["alerts"] >= 0


def test_the_command_writes_report_and_data(
    log: OwnLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Context, "need", lambda self, *parts: log.fresh())
    monkeypatch.setattr(Context, "stack", log.stack)
    (tmp_path / "bad.py").write_text("class Strategy:\n    def on_transaction(self, *given):\n        raise KeyError('x')\n")
    given: dict[str, Any] = {"policy": ["standard"], "strategy": [tmp_path / "bad.py"], "out": tmp_path / "report", "json": True}
    status = replay_command(
        "earliest", "300", "max", 1, None, given["policy"], ["deployed"], given["strategy"], "10m", "USD", given["out"], False, True
    )
    assert '"outcome_sha256"' in capsys.readouterr().out
    assert status == exits.FAILED, "its strategy threw"
    saved = json.loads((tmp_path / "report" / "report.json").read_text())
    assert len(saved["outcome_sha256"]) == 64 and saved["outcome"]["transactions"] == 299
    assert "<html" in (tmp_path / "report" / "report.html").read_text()


def test_a_hole_in_the_archive_is_an_error_that_names_it(log: OwnLog, tmp_path: Path) -> None:
    composition = log.fresh()
    s3, bucket = composition.clients.s3, composition.settings.s3.bucket
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="raw/g1/transaction-events/")["Contents"]
    key = next(one["Key"] for one in listed if one["Key"].endswith(".parquet"))
    found = s3.get_object(Bucket=bucket, Key=key)
    body, marks = found["Body"].read(), found["Metadata"]
    s3.delete_object(Bucket=bucket, Key=key)
    try:
        with pytest.raises((ReplayError, SourceIncomplete), match=r"seq \d+"):
            run(log, tmp_path, ReplayRequest(until=COUNT))
    finally:
        s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata=marks)


def test_a_stopped_replay_has_no_outcome_and_leaves_nothing(log: OwnLog, tmp_path: Path) -> None:
    before = log.composition.clients.admin.names(PREFIX)
    asked = iter(range(1_000_000))
    for kept in (False, True):
        after = 10 + next(asked)
        request = ReplayRequest(speed=3600.0, is_kept=kept)
        result = replay(log.fresh(), request, folder=tmp_path, stopped=lambda after=after: next(asked) > after)  # type: ignore[misc]
        assert result.is_stopped and not result.outcome
    assert log.composition.clients.admin.names(PREFIX) == before


def test_what_a_killed_replay_left_goes_with_the_next(log: OwnLog, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_slow, args=(log.stack.settings(), tmp_path))
    process.start()
    deadline = time.monotonic() + 180
    while not log.composition.clients.admin.names(PREFIX) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert log.composition.clients.admin.names(PREFIX)
    with pytest.raises(ReplayError, match="runs already"):
        run(log, tmp_path, ReplayRequest(speed=1.0))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert run(log, tmp_path, ReplayRequest(until=50, models=(NO_SCORES,))).outcome["transactions"] == 49
    assert not log.composition.clients.admin.names(PREFIX)
    assert not [topic for topic in log.composition.clients.admin.names(PREFIX) if CASE_EVENTS in topic]


def _slow(settings: Settings, folder: Path) -> None:
    from infra.composition import Composition

    replay(Composition(settings), ReplayRequest(speed=1.0), folder=folder)
