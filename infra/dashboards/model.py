"""What the page shows, as plain frozen values: figures read at one moment, none of them judged. None is "not known", never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

Step = Literal["hour", "day", "week", "month", "quarter", "year"]

_MONTHS = {"month": 1, "quarter": 3, "year": 12}


def begin_of(at: datetime, step: Step) -> datetime:
    """The beginning of the step in which a time lies, as SQL's `date_trunc` has it: weeks begin on Monday."""
    if step == "hour":
        return at.replace(minute=0, second=0, microsecond=0)
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if step == "day":
        return day
    if step == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(month=(day.month - 1) // _MONTHS[step] * _MONTHS[step] + 1, day=1)


def end_of(begin: datetime, step: Step) -> datetime:
    """The beginning of the next step."""
    longest = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
    return begin_of(begin + longest.get(step, timedelta(days=31 * _MONTHS.get(step, 0))), step)


@dataclass(frozen=True, slots=True)
class Window:
    """What the page is about: event times from `since` (included) to `until`, cut into bars of `step`. `is_whole`: all there is."""

    since: datetime
    until: datetime
    step: Step
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Volume:
    """One network's and asset's transactions in the step from `at`; `amount` is the sum of those that settled."""

    at: datetime
    network: str
    asset: str
    transactions: int
    settled: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Alerts:
    """Alerts of one reason whose transactions happened in the step from `at`."""

    at: datetime
    reason: str
    alerts: int


@dataclass(frozen=True, slots=True)
class Funnel:
    """Cases of the window's alerts, each counted at every stage that it has reached; verdicts by the last one of each case."""

    alerted: int
    taken_up: int
    decided: int
    closed: int
    verdicts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Visits:
    """A shop's visits with a step in the window, and how many of them reached each step there."""

    visits: int
    viewed_product: int
    filled_basket: int
    went_to_pay: int
    tried_to_pay: int
    ordered: int


@dataclass(frozen=True, slots=True)
class AtRisk:
    """What wallets with an undecided alert moved of one asset; `of` is what all wallets moved of it."""

    asset: str
    transactions: int
    amount: Decimal
    of: Decimal | None


@dataclass(frozen=True, slots=True)
class AlertedWallet:
    """A wallet with its alerts of the window; case, reason, status and verdict are the last one's."""

    wallet_id: str
    case_id: str
    score: float
    alerts: int
    transactions: int
    reason: str
    status: str
    verdict: str
    known_at: datetime
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Worker:
    """How far a worker is: offsets and seconds behind the log; `problem` says why that is unknown, or what failed last."""

    name: str
    state: str
    lag: int | None
    lag_s: float | None
    records_per_s: float
    quarantined: int
    problem: str | None


@dataclass(frozen=True, slots=True)
class Log:
    """What the log and its workers say of themselves; `problem` where they could not be asked."""

    workers: tuple[Worker, ...] = ()
    quarantine: Mapping[str, int] | None = None
    problem: str | None = None

    @property
    def warehouse(self) -> Worker | None:
        """The worker that fills the warehouse."""
        return next((worker for worker in self.workers if worker.name == "warehouse"), None)


@dataclass(frozen=True, slots=True)
class TopicPosition:
    """Up to which offsets of a topic the warehouse is true, its partitions added."""

    topic: str
    partitions: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What the warehouse says, as of one snapshot. `scores` counts the last ones in bins of equal width over [0, 1].

    `window` is none where there is no transaction. `fresh_from`: older hours are as the materialised view was last refreshed, later
    ones as the facts are. `stale`: how many more transactions stand there now than the view counted, fewer where it is negative.
    """

    generation: int
    window: Window | None
    fresh_from: datetime | None
    newest_ingested_at: datetime | None
    position: tuple[TopicPosition, ...]
    volume: tuple[Volume, ...] = ()
    scores: tuple[int, ...] = ()
    alerts: tuple[Alerts, ...] = ()
    funnel: Funnel = Funnel(0, 0, 0, 0, {})
    at_risk: tuple[AtRisk, ...] = ()
    wallets: tuple[AlertedWallet, ...] = ()
    visits: Visits = Visits(0, 0, 0, 0, 0, 0)
    stale: int = 0


@dataclass(frozen=True, slots=True)
class Dashboard:
    """The page."""

    made_at: datetime
    stack: str
    figures: Figures
    log: Log

    def as_json(self) -> dict[str, Any]:
        """Plain values; times and amounts are for the writer to turn into text."""
        return asdict(self)
