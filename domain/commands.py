"""Commands: requests in the imperative that may be refused.

`RecordTransaction` has no class of its own: on the wire it is the event's own record, so that the accepted bytes pass
through unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class DescribeWallet:
    wallet_id: str
    kind: str
    name: str | None
    country: str | None
    source: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class LabelWallet:
    wallet_id: str
    label: str
    source: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class LabelTransaction:
    tx_id: str
    label: str
    source: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class VoidTransaction:
    """`seq` names the revision meant; none takes back whichever stands."""

    tx_id: str
    seq: int | None
    reason: str
    replaced_by: str | None
    actor: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class FreezeWallet:
    wallet_id: str
    reason: str
    actor: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class ReleaseWallet:
    wallet_id: str
    reason: str
    actor: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class RaiseAlert:
    wallet_id: str
    reason: str
    score: float
    threshold: float
    tx_id: str
    tx_seq: int
    explanation: str
    model_version: str
    known_at: datetime
    rules: str | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class OpenCase:
    case_id: str
    actor: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class AssignCase:
    case_id: str
    assignee: str
    actor: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class ReachVerdict:
    case_id: str
    verdict: str
    reason: str
    actor: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class CloseCase:
    case_id: str
    reason: str
    actor: str
    known_at: datetime


WalletCommand = DescribeWallet | LabelWallet | FreezeWallet | ReleaseWallet
CaseCommand = RaiseAlert | OpenCase | AssignCase | ReachVerdict | CloseCase
Command = WalletCommand | CaseCommand | LabelTransaction | VoidTransaction
