"""A client that never comes back from a transaction is given up; one that fails is aborted, as ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from domain.errors import Fenced, LogError
from infra.kafka import transactions
from infra.kafka.transactions import KafkaTransactions


class Producer:
    """Does in each call what it is told: nothing, raise, or stand still."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.does: dict[str, Any] = {}
        self.goes_on = threading.Event()

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any) -> None:
            self.calls.append(name)
            act = self.does.get(name)
            if isinstance(act, str):
                self.goes_on.wait()
            elif act is not None:
                raise KafkaException(act)

        return call


class Member:
    def consumer_group_metadata(self) -> None: ...


@pytest.fixture
def producer() -> Iterator[Producer]:
    found = Producer()
    yield found
    found.goes_on.set()


@pytest.fixture
def log(producer: Producer, monkeypatch: pytest.MonkeyPatch) -> KafkaTransactions:
    monkeypatch.setattr(transactions, "GIVE_UP_S", 0.2)
    found = KafkaTransactions.__new__(KafkaTransactions)
    found._group, found._topics, found._producer, found._member = "g", (), producer, Member()  # type: ignore[assignment]
    return found


@pytest.mark.parametrize("call", ["send_offsets_to_transaction", "commit_transaction"])
def test_a_call_that_never_comes_back_is_given_up_and_nothing_more_is_asked_of_the_client(
    log: KafkaTransactions, producer: Producer, call: str
) -> None:
    producer.does[call] = "stand still"
    with pytest.raises(LogError, match="did not come back from a transaction"):
        log.commit((), (), {("t", 0): 1})
    assert producer.calls[-1] == call


def test_an_abort_that_never_comes_back_is_given_up_too(log: KafkaTransactions, producer: Producer) -> None:
    producer.does = {"commit_transaction": KafkaError(KafkaError._TIMED_OUT), "abort_transaction": "stand still"}
    with pytest.raises(LogError, match="did not come back from a transaction"):
        log.commit((), (), {("t", 0): 1})


def test_what_fails_is_aborted_and_named(log: KafkaTransactions, producer: Producer) -> None:
    producer.does["commit_transaction"] = KafkaError(KafkaError._TIMED_OUT)
    with pytest.raises(LogError, match="g: the transaction failed"):
        log.commit((), (), {("t", 0): 1})
    assert producer.calls[-1] == "abort_transaction"


def test_who_is_fenced_aborts_nothing(log: KafkaTransactions, producer: Producer) -> None:
    producer.does["send_offsets_to_transaction"] = KafkaError(KafkaError._FENCED)
    with pytest.raises(Fenced):
        log.commit((), (), {("t", 0): 1})
    assert "abort_transaction" not in producer.calls
