"""Card alerts: what is one, both stores alike whenever it dies, and records that are no scores."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest

from domain.errors import LogError
from domain.log import Record
from infra.lambdas.card_alerts import CardAlerts, CardAlertsReport
from schema_registry.contracts import QUARANTINE_EVENTS
from tests.unit.infra.lambdas.card_scores import CODEC, Items, Log, Payloads, Table, placed, score, score_value


class World:
    """The function and all that stands around it, in memory."""

    def __init__(self) -> None:
        self.table, self.items, self.log, self.payloads = Table(), Items(), Log(), Payloads()

    def handle(self, records: Sequence[Record], threshold: float = 0.5) -> CardAlertsReport:
        return CardAlerts(CODEC, threshold, self.table, self.items, self.log, self.payloads).handle(records)

    def are_same(self) -> bool:
        return self.table.rows == self.items.items


@pytest.fixture
def world() -> World:
    return World()


def test_scores_at_or_above_the_threshold_are_alerts_in_both_stores(world: World) -> None:
    report = world.handle([score(1, 0.499999), score(2, 0.5), score(3, 0.9)])
    assert (report.records, report.scores, report.alerts, report.put) == (3, 3, 2, 2)
    assert {key[1] for key in world.table.rows} == {2, 3} and world.are_same()
    alert = world.table.rows[("card:3:0", 3, "m1")]
    assert (alert.score, alert.threshold, alert.scored_at.isoformat()) == (0.9, 0.5, "2023-11-14T22:13:20.003000+00:00")


def test_other_networks_and_other_events_are_passed_over(world: World) -> None:
    other = CODEC.encode("WalletEmbedded", {"wallet_id": "a:b", "vector": b"", "dimensions": 0, "model_version": "m1", "as_of_seq": 0})
    report = world.handle([score(1, 0.9, network="ethereum"), placed(2, other)])
    assert (report.scores, report.alerts, report.refused.total()) == (0, 0, 0) and not world.table.rows


def test_the_same_batch_again_changes_nothing(world: World) -> None:
    records = [score(n, 0.9) for n in range(5)]
    assert (world.handle(records).put, world.handle(records).put) == (5, 0)
    assert len(world.table.rows) == 5 and world.are_same()


def test_another_revision_or_another_model_is_another_alert(world: World) -> None:
    world.handle([score(1, 0.9), score(2, 0.9, tx_id="card:1:0"), score(1, 0.8, model_version="m2")])
    assert len(world.table.rows) == 3 and world.are_same()


@pytest.mark.parametrize("again", [0.5, 0.95], ids=["same threshold", "raised meanwhile"])
def test_dying_after_the_table_loses_nothing_and_doubles_nothing(world: World, again: float) -> None:
    records = [score(1, 0.9), score(2, 0.1), score(3, 0.99)]
    world.table.dies = True
    with pytest.raises(KeyboardInterrupt):
        world.handle(records)
    assert len(world.table.rows) == 2 and not world.items.items
    world.table.dies = False
    world.handle(records, again)
    assert {key[1] for key in world.items.items} == {1, 3} and world.are_same()
    assert {alert.threshold for alert in world.items.items.values()} == {0.5}, "the first decision stands"


def test_dying_between_two_puts_loses_nothing_and_doubles_nothing(world: World) -> None:
    records = [score(n, 0.9) for n in range(4)]
    world.items.dies_after = 2
    with pytest.raises(KeyboardInterrupt):
        world.handle(records)
    assert len(world.items.items) == 2
    world.items.dies_after = None
    assert world.handle(records).put == 2 and world.are_same()


BAD = {
    "no value": (None, "no_value"),
    "no frame": (b"\x01no event", "not_framed"),
    "an unknown schema": (b"\x00\x00\x00\xff\xff1234", "unknown_schema_id"),
    "cut short": (score_value(1, 0.9)[:-3], "malformed"),
    "more bytes behind": (score_value(1, 0.9) + b"x", "trailing_bytes"),
    "not a number": (score_value(1, math.nan), "invalid_score"),
    "above 1": (score_value(1, 1.5), "invalid_score"),
    "infinite without the graph": (score_value(1, 0.9, features_only_score=math.inf), "invalid_features_only_score"),
    "no id": (score_value(1, 0.9, tx_id=""), "invalid_tx_id"),
    "a null within an id, which Postgres cannot hold": (score_value(1, 0.9, tx_id="card:\x00:0"), "invalid_tx_id"),
    "an id too long for a key": (score_value(1, 0.9, model_version="m" * 300), "invalid_model_version"),
    "a negative seq": (score_value(1, 0.9, tx_seq=-1), "invalid_tx_seq"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_record_that_is_no_score_is_set_aside_whole_and_stops_nobody(world: World, name: str) -> None:
    value, reason = BAD[name]
    report = world.handle([score(1, 0.9), placed(2, value, 3), score(3, 0.9)])
    assert report.alerts == 2
    (entry,) = world.log.records
    kind, said = CODEC.decode(entry.value)
    assert (entry.topic, kind, said["projection"], said["payload"]) == (QUARANTINE_EVENTS, "RecordQuarantined", "card-alerts", value)
    assert (said["topic"], said["partition"], said["offset"]) == ("score-events", 3, 2) and said["headers"][0]["name"] == "seq"
    if name != "cut short":  # where it ends decides whether it is malformed or truncated
        assert said["reason"] == reason and dict(report.refused) == {reason: 1}
    assert not said["message"].startswith("tx_id: tx_id")


def test_a_time_beyond_the_calendar_is_set_aside(world: World) -> None:
    report = world.handle([Record("score-events", 0, 1, 1 << 62, None, score_value(1, 0.9))])
    assert dict(report.refused) == {"invalid_timestamp": 1}


def test_a_refused_record_that_is_too_large_goes_to_the_object_store(world: World) -> None:
    world.handle([placed(1, b"x" * 300_000)])
    said = CODEC.decode(world.log.records[0].value)[1]
    assert said["payload"] is None and world.payloads.objects[said["payload_uri"]] == b"x" * 300_000


def test_a_refused_record_that_quarantine_does_not_take_fails_the_batch_which_comes_again(world: World) -> None:
    world.log.failed = {0: "no room"}
    with pytest.raises(LogError, match="1 refused records are not in quarantine: no room"):
        world.handle([placed(1, b"x"), score(2, 0.9)])
    world.log.failed = {}
    assert world.handle([placed(1, b"x"), score(2, 0.9)]).put == 0 and len(world.table.rows) == 1 and world.are_same()


def test_the_metrics_are_cloudwatch_s(world: World) -> None:
    line = json.loads(world.handle([score(1, 0.9), placed(2, b"x")]).line(0.01, 5))
    assert (line["Records"], line["Scores"], line["Alerts"], line["Refused"], line["Function"]) == (2, 1, 1, 1, "card-alerts")
    names = [metric["Name"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]]
    assert set(names) == {"Records", "Scores", "Alerts", "Refused", "LagMs", "HandlingMs"} and line["_aws"]["Timestamp"] == 5


def test_an_empty_batch_is_done(world: World) -> None:
    assert world.handle([]).answer() == {"records": 0, "alerts": 0, "refused": 0}
