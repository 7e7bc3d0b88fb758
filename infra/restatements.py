"""When the features leave out what was taken back: kept in the log, so that scorer, restart and training agree."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from domain.log import NewRecord
from graph.restatement import Restatement, void_up_to
from infra.clients import Clients
from infra.kafka.producer import PlainProducer
from infra.log_view import LogView
from projections.records import seq_header
from schema_registry.contracts import CONTROL_EVENTS, WALLET_EVENTS
from schema_registry.record_codec import RecordCodec


def restatements(log: LogView, before: int) -> list[Restatement]:
    """Those of the log that begin at or before a seq, in order."""
    starts = [seq for seq in log.restated_from() if seq <= before]
    voids = log.voids() if starts else []
    return [Restatement(seq, void_up_to(voids, seq)) for seq in starts]


def restate_features(log: LogView, clients: Clients, producer: PlainProducer, from_seq: int) -> Restatement:
    """What features from `from_seq` on leave out; what was taken back since the last restatement enters a new one.

    Only for who computes features from there on and has fenced everyone else who does: it decides for all that come later.
    """
    voids = log.voids()
    last = max((seq for seq in log.restated_from() if seq <= from_seq), default=0)
    known, wanted = void_up_to(voids, last), void_up_to(voids, from_seq)
    if wanted == known:
        return Restatement(last, known)
    value = {"from_seq": from_seq, "voids": len(wanted), "known_at": datetime.now(UTC)}
    encoded = RecordCodec(clients.catalog).encode("FeaturesRestated", value)
    producer.append([NewRecord(CONTROL_EVENTS, b"features", encoded, (seq_header(from_seq - 1),))])
    return Restatement(from_seq, wanted)


def outdated(log: LogView, known: Restatement, next_seq: Callable[[], int]) -> Callable[[], bool]:
    """Whether a restatement at `next_seq` would leave out more than `known`; asks the end of one small topic while nothing comes."""
    seen = log.ends([WALLET_EVENTS])

    def is_outdated() -> bool:
        nonlocal seen
        ends = log.ends([WALLET_EVENTS])
        if ends == seen:
            return False
        if void_up_to(log.voids(), next_seq()) != known.void_up_to:
            return True
        # What is too new to count is looked at again next time, though nothing else came.
        seen = ends if not any(seq >= next_seq() - 1 for _, seq in log.voids()) else seen
        return False

    return is_outdated
