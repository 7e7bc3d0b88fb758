"""A policy in the log: set once, growing, tried on what the log has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from domain.log import NewRecord
from domain.policy import DEFAULT, PolicyError
from infra.policy_files import change, current, read_policy
from infra.policy_trial import of_log, try_policy
from infra.policy_watch import LOOK_S, PolicyWatch
from schema_registry.contracts import CASE_EVENTS, CONTROL_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

COUNT = 600


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3"]) as found:
        found.simulate(COUNT, seed=6)
        yield found


def policy(folder: Path, version: int, budget: float) -> str:
    file = folder / "mine.yaml"
    file.write_text(
        f"name: mine\nversion: {version}\nalerts: {{budget: {budget}}}\nrules:\n  - {{name: cards, says: x, where: {{network: card}}}}\n"
    )
    return str(file)


def test_it_holds_once_it_is_set_and_only_a_higher_version_takes_its_place(log: OwnLog, tmp_path: Path) -> None:
    assert current(log.fresh()) == DEFAULT
    assert change(log.fresh(), read_policy(policy(tmp_path, 1, 0.02)), "maria")
    assert current(log.fresh()).alerts.budget == 0.02
    assert not change(log.fresh(), read_policy(policy(tmp_path, 1, 0.02)), "maria"), "the same again is no event"
    with pytest.raises(PolicyError, match="version: expected more than 1, which the log has of mine, found 1"):
        change(log.fresh(), read_policy(policy(tmp_path, 1, 0.05)), "maria")
    assert change(log.fresh(), read_policy(policy(tmp_path, 2, 0.05)), "maria")
    assert change(log.fresh(), read_policy("standard"), "maria"), "a policy of another name"
    with pytest.raises(PolicyError, match="version: expected more than 2, which the log has of mine"):
        change(log.fresh(), read_policy(policy(tmp_path, 2, 0.07)), "maria")  # a name and version mean one policy for ever
    told = [record for name, record, *_ in log.fresh().log.events(CONTROL_EVENTS) if name == "PolicyChanged"]
    assert [record["actor"] for record in told] == ["maria"] * 3
    assert current(log.fresh()) == read_policy("standard")


def test_what_cannot_be_read_can_be_replaced(log: OwnLog, tmp_path: Path) -> None:
    broken = {"policy": '{"name": "from the future"}', "actor": "nobody", "known_at": datetime.now(UTC)}
    value = RecordCodec(log.composition.clients.catalog).encode("PolicyChanged", broken)
    log.composition.producer.append([NewRecord(CONTROL_EVENTS, b"policy", value)])
    with pytest.raises(PolicyError):
        current(log.fresh())
    assert change(log.fresh(), read_policy("standard"), "maria")
    assert current(log.fresh()) == read_policy("standard")


def test_rules_are_tried_on_the_log_in_its_order(log: OwnLog, tmp_path: Path) -> None:
    trial = try_policy(read_policy(policy(tmp_path, 1, 0.02)), of_log(log.fresh()))
    assert trial.transactions == COUNT and trial.rules["cards"].hits > 0
    assert trial.as_json() | {"transactions_per_s": 0} == try_policy(
        read_policy(policy(tmp_path, 1, 0.02)), of_log(log.fresh())
    ).as_json() | {"transactions_per_s": 0}, "the same again"


def test_rules_raise_alerts_of_what_comes_after_them_each_wallet_once(log: OwnLog, tmp_path: Path) -> None:
    assert change(log.fresh(), read_policy(policy(tmp_path, 3, 0.02)), "maria")
    log.drive("rules")
    assert raised(log) == [], "of what was there before nobody is alerted"
    log.simulate(COUNT, seed=7)
    log.drive("rules")
    log.drive("command-handler")
    found = raised(log)
    cards = {record["wallet_id"] for record in found}
    assert found and len(cards) == len(found) and all(wallet.startswith("card:") for wallet in cards)
    assert {(record["reason"], record["rules"], record["policy"]) for record in found} == {("rule", "cards", "mine@3")}
    log.drive("rules")
    log.drive("command-handler")
    assert raised(log) == found, "a second start says nothing twice"


def test_a_worker_that_goes_on_meanwhile_notices_another_policy(log: OwnLog, tmp_path: Path) -> None:
    assert change(log.fresh(), read_policy(policy(tmp_path, 5, 0.02)), "maria")
    clock = 0.0
    watch = PolicyWatch(log.fresh().log, lambda: clock)
    assert watch.held.policy.title == "mine@5"
    clock = 2 * LOOK_S
    assert not watch.is_replaced()
    assert change(log.fresh(), read_policy(policy(tmp_path, 6, 0.02)), "maria")
    assert not watch.is_replaced(), "it looks once a second"
    clock = 4 * LOOK_S
    assert watch.is_replaced()


def raised(log: OwnLog) -> list[dict[str, Any]]:
    """Every alert of the log, by its case: partitions come interleaved, another time in another way."""
    found = [record for name, record, *_ in log.fresh().log.events(CASE_EVENTS) if name == "AlertRaised"]
    return sorted(found, key=lambda record: record["case_id"])
