"""Read your own write: a token says how far the command topic was after what you sent, and `wait_for` returns once a reader has it.

What was sent is included in a reader when
1. the command handler's stored position has passed the token: each command is an event, a duplicate, or refused with its reason,
2. the transaction with those events is visible in every event topic, and
3. the reader's stored position has passed the ends of the topics that the handler writes to, taken after 2.
The scorer is asked about the transactions, the alerts about the scores that the scorer gave for them. Positions come from where they
are stored, in the transaction of the rows that they describe, so that whoever asks the store afterwards finds the rows.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from domain.errors import InvalidValue
from domain.log import Position
from infra.composition import Composition, NotReady
from infra.lambdas.card_alerts import CARD_ALERTS
from infra.read_models import names
from infra.status import COMMAND_HANDLER, read_position
from projections.errors import StoreUnavailable
from schema_registry.contracts import CASE_EVENTS, COMMANDS, QUARANTINE_EVENTS, SCORE_EVENTS, TRANSACTION_EVENTS, WALLET_EVENTS

HANDLER_TOPICS = (TRANSACTION_EVENTS, WALLET_EVENTS, CASE_EVENTS, QUARANTINE_EVENTS)
"""Where the command handler appends what it decided, and what it could not read."""
STAGES: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "scorer": (("scorer", (TRANSACTION_EVENTS,)),),
    "alerts": (("scorer", (TRANSACTION_EVENTS,)), ("alerts", (SCORE_EVENTS,))),
    "rules": (("rules", (TRANSACTION_EVENTS,)),),
    CARD_ALERTS: (("scorer", (TRANSACTION_EVENTS,)), (CARD_ALERTS, (SCORE_EVENTS,))),
}
"""Who must pass the ends of which topics after the handler, one after the other; a read model: itself, of those that it reads."""
TIMEOUT_S = 30.0
_POLL_S = (0.02, 0.5)  # the first pause, and the longest
_GENERATIONS_EVERY_S = 2.0  # how soon a swap is noticed while waiting
_TOKEN = re.compile(r"(?P<topic>[a-z-]+):(?P<partition>\d+):(?P<next_offset>\d+)@(?P<log_id>[\w-]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class WriteToken:
    """A place in the command topic of one log: all that you sent stands before it."""

    next_offset: int
    log_id: str

    def __str__(self) -> str:
        return f"{COMMANDS}:0:{self.next_offset}@{self.log_id}"

    @classmethod
    def parse(cls, text: str) -> WriteToken:
        """The token behind its text.

        Raises:
            InvalidValue: it is none.
        """
        found = _TOKEN.fullmatch(text.strip())
        if found is None or found["topic"] != COMMANDS or int(found["partition"]) != 0 or int(found["next_offset"]) >= 1 << 63:
            raise InvalidValue("token", f"expected {COMMANDS}:0:<offset>@<log>, as `tidemark ingest` prints it, found {text[:80]!r}")
        return cls(int(found["next_offset"]), found["log_id"])


class NotIncludedYet(NotReady):
    """Time ran out before a reader included what was written; the message says how far it is. Nothing is lost: ask again."""


@dataclass(frozen=True, slots=True)
class Included:
    """A reader includes what was written; `position` is the place in each topic that it has passed."""

    projection: str
    position: Position
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The answer as plain values."""
        position = {f"{topic}/{partition}": offset for (topic, partition), offset in sorted(self.position.items())}
        return {"projection": self.projection, "included": True, "position": position, "seconds": round(self.seconds, 3)}


def token_now(composition: Composition) -> WriteToken:
    """A token for everything that was appended to the command topic until now, and acknowledged.

    Raises:
        LogError: Kafka does not answer.
    """
    admin = composition.clients.admin
    return WriteToken(admin.ends([COMMANDS]).get((COMMANDS, 0), 0), admin.log_id())


def readers_to_wait_for() -> tuple[str, ...]:
    """Who can be waited for: the read models, then the scorer, the alerts and the function for card alerts."""
    return (*names(), *STAGES)


def wait_for(token: str | WriteToken, projection: str, timeout_s: float = TIMEOUT_S, *, composition: Composition | None = None) -> Included:
    """Return once a reader includes everything before a token.

    Args:
        token: what ingestion returned.
        projection: a read model, scorer, alerts or card-alerts.
        composition: the log and stores meant; by default those of the settings and the local stack.

    Raises:
        InvalidValue: no token, one of another log, or no such reader.
        NotIncludedYet: not within `timeout_s`.
        LogError: Kafka does not answer.
    """
    if isinstance(token, str):
        token = WriteToken.parse(token)
    readers = readers_to_wait_for()
    if projection not in readers:
        raise InvalidValue("projection", f"expected one of {', '.join(readers)}, found {projection[:40]!r}")
    return _Waiting(composition or _local(), token, projection, timeout_s).run()


class _Waiting:
    def __init__(self, composition: Composition, token: WriteToken, projection: str, timeout_s: float) -> None:
        self._composition, self._token, self._projection, self._timeout_s = composition, token, projection, timeout_s
        self._started = time.monotonic()
        self._generations: dict[str, int] = {}
        self._generations_at = float("-inf")

    def run(self) -> Included:
        admin, token = self._composition.clients.admin, self._token
        if token.log_id != (found := admin.log_id()):
            raise InvalidValue("token", f"it is of the log {token.log_id}, this one is {found}")
        written = admin.ends([COMMANDS]).get((COMMANDS, 0), 0)
        if token.next_offset > written:
            raise InvalidValue("token", f"it names offset {token.next_offset}, but the command topic ends at {written}")
        # Alerts and rules ask in Kafka transactions: behind the last command a marker may stand, which no reader's position passes.
        wanted = min(token.next_offset, self._composition.log.ends([COMMANDS]).get((COMMANDS, 0), 0))
        self._until(COMMAND_HANDLER, {(COMMANDS, 0): wanted} if wanted else {}, self._handled)
        target: Position = {}
        for name, topics in self._stages():
            target = self._ends(topics)
            self._until(name, target, lambda name=name: self._position(name))  # type: ignore[misc]
        return Included(self._projection, target, time.monotonic() - self._started)

    def _stages(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        if self._projection in STAGES:
            return STAGES[self._projection]
        # Its position says nothing of topics that it does not read: it would never pass their ends.
        read: tuple[str, ...] = self._composition.store(self._projection).topics
        return ((self._projection, tuple(topic for topic in HANDLER_TOPICS if topic in read)),)

    def _handled(self) -> Position:
        return self._composition.clients.admin.committed(f"tidemark-{COMMAND_HANDLER}", (COMMANDS,))

    def _ends(self, topics: tuple[str, ...]) -> Position:
        """The ends of topics, once all that stands there now is decided: a commit returns a moment before its markers are everywhere."""
        admin = self._composition.clients.admin
        written = admin.written(topics)
        self._until("the log", written, lambda: admin.ends(topics))
        return self._composition.log.ends(topics)

    def _position(self, name: str) -> Position:
        if time.monotonic() - self._generations_at > _GENERATIONS_EVERY_S:
            self._generations, self._generations_at = self._composition.log.generations(), time.monotonic()
        return read_position(self._composition, name, self._generations)[1]

    def _until(self, name: str, target: Position, ask: Callable[[], Position]) -> None:
        pause, problem = _POLL_S[0], ""
        while True:
            position: Position = {}
            try:
                position = ask()
                problem = ""
            except StoreUnavailable as error:  # it may come back in time
                problem = f" ({error})"
            missing = {tp: end for tp, end in target.items() if position.get(tp, 0) < end}
            if not missing and not problem:
                return
            left = self._started + self._timeout_s - time.monotonic()
            if left <= 0:
                raise NotIncludedYet(self._told(name, missing, position, problem))
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _POLL_S[1])

    def _told(self, name: str, missing: Position, position: Position, problem: str) -> str:
        behind = sum(end - position.get(tp, 0) for tp, end in missing.items())
        (topic, partition), end = next(iter(sorted(missing.items())), (("", 0), 0))
        place = f"{topic}/{partition} stands at {position.get((topic, partition), 0)}, wanted {end}" if topic else "its position is unknown"
        hint = ": is it running (`tidemark status`)?" if not position and not problem else ""
        return (
            f"{self._projection} does not include {self._token} after {self._timeout_s:g} s: {name} is {behind} offsets behind,"
            f" {place}{problem}{hint}"
        )


def _local() -> Composition:
    from infra.settings import load_settings
    from infra.stack import Stack

    return Composition(Stack.of(load_settings()).settings())
