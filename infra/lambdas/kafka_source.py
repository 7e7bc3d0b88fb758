"""A Kafka event-source mapping: reads topics, calls a function with batches, and moves the group's position after success, as Lambda does.

A batch is closed by its number of records, its bytes, or its window. A call that fails comes again whole, at ever longer intervals, and
nothing after it is read meanwhile. The position is the group's offsets in Kafka: whoever takes over goes on from there, and what was
handed over without being stored comes a second time.

Source: AWS Lambda Developer Guide, "Configuring self-managed Apache Kafka event sources" and "Batching behavior".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from domain.log import NewRecord, Position, Record, TopicPartition
from infra.lambdas.batches import batches
from infra.lambdas.event_source import Delivered, Function, pause
from infra.lambdas.kafka_event import event_of, item_of
from infra.lambdas.runtime import FunctionError
from projections.errors import StoreUnavailable
from projections.runner import Source
from projections.work import Append

_BATCH_BYTES = 6 << 20  # of an event: Lambda's limit, base64 and all
_BACKOFF_S, _BACKOFF_MOST_S = 0.2, 10.0
_POLL_S = 0.2  # how long to wait for a first record
_TRIES = 8  # failed calls in a row after which what lies around the function is looked up anew

_log = structlog.get_logger(__name__)


class Positions(Protocol):
    """Keeps a group's position; see `infra.kafka.transactions.KafkaTransactions`."""

    def load_position(self) -> Position: ...

    def commit(self, appends: Sequence[Append], records: Sequence[NewRecord], position: Position) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class KafkaSourceOptions:
    """The mapping's settings under Lambda's names: BatchSize and MaximumBatchingWindowInSeconds."""

    batch_size: int = 500
    window_s: float = 0.5


DEFAULTS = KafkaSourceOptions()


class KafkaEventSource:
    """Calls one function with what a source brings. Used by one thread. It reads from the stored position on once it is made.

    Args:
        bootstrap: the cluster's address, which is told to the function.
        stopped: asked before each call and while waiting; a call that is under way is finished.
        delivered: counted on, where a mapping takes the place of another.
    """

    def __init__(
        self,
        source: Source,
        positions: Positions,
        bootstrap: str,
        function: Function,
        function_name: str,
        options: KafkaSourceOptions = DEFAULTS,
        *,
        stopped: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        delivered: Delivered | None = None,
    ) -> None:
        self._source, self._positions, self._bootstrap = source, positions, bootstrap
        self._function, self._function_name, self._options = function, function_name, options
        self._stopped, self._sleep, self._monotonic = stopped, sleep, monotonic
        self.delivered = delivered if delivered is not None else Delivered()
        source.open(positions.load_position, lambda: None, lambda: None)

    def poll(self) -> int:
        """Gather a batch, have it done, store the position; returns how many records were done.

        Raises:
            StoreUnavailable: the function has failed several times in a row; the batch is not done, and comes again to a mapping made anew.
            LogError: Kafka does not answer, or another mapping of this group has taken over (`Fenced`).
        """
        records = self._gather()
        done = 0
        for part in batches(records, self._options.batch_size, _BATCH_BYTES, _size):
            if not self._deliver(part):
                break
            done += len(part)
        return done

    def close(self) -> None:
        """Let go of the clients; the position stays."""
        self._source.close()
        self._positions.close()

    def _gather(self) -> list[Record]:
        found: list[Record] = []
        began = self._monotonic()
        while len(found) < self._options.batch_size and not self._stopped():
            read = self._source.poll(self._options.batch_size - len(found), _POLL_S)
            if read and not found:
                began = self._monotonic()
            found += [batch.record(at) for batch in read for at in range(len(batch))]
            if self._monotonic() - began >= self._options.window_s or not found:
                break
        return found

    def _deliver(self, records: list[Record]) -> bool:
        """Have one batch done; false when stopped before."""
        event = event_of(records, self._bootstrap)
        for tries in range(1, _TRIES + 1):
            if self._stopped():
                return False
            self.delivered.batches += 1
            try:
                self._function(event)
            except FunctionError as error:
                problem = error
            else:
                self._positions.commit((), (), _after(records))
                self.delivered.records += len(records)
                return True
            self.delivered.retries += 1
            _log.warning("batch_not_done", function=self._function_name, records=len(records), tries=tries, problem=str(problem)[:500])
            pause(min(_BACKOFF_MOST_S, _BACKOFF_S * 2 ** (tries - 1)), self._stopped, self._sleep)
        raise StoreUnavailable(f"{self._function_name} has failed {_TRIES} times in a row: {str(problem)[:300]}") from problem


def _after(records: Sequence[Record]) -> dict[TopicPartition, int]:
    position: dict[TopicPartition, int] = {}
    for record in records:
        place = (record.topic, record.partition)
        position[place] = max(position.get(place, 0), record.offset + 1)
    return position


def _size(record: Record) -> int:
    return len(json.dumps(item_of(record)))
