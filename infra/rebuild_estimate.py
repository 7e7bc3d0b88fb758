"""What a rebuild would read, write and take, before it does: from listings, offsets and a small sample; nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from domain.log import Position
from infra.composition import Composition
from infra.history_source import Plan
from infra.kafka.reading import read_batches

SAMPLE = 200  # records a partition from which the size of those in Kafka is taken
# Records a second on two shared cores, as `tidemark bench` measured them; only used until a first rebuild has given this machine's own.
BENCH_RATES = {"archive": 106_000.0, "warehouse": 24_500.0, "graph": 6_600.0}
OTHER_RATE = 10_000.0  # of a read model that no bench has measured: a guess on the slow side


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of a rebuild. Records count offsets, so transaction markers are in them; bytes are as stored, `rows` as the live one has.

    `how` says in a sentence what is done with them, where that is not plain.
    """

    name: str
    generation: int
    replaces: int
    archive_objects: int
    archive_records: int
    archive_bytes: int
    kafka_records: int
    kafka_bytes: int
    rows: dict[str, int]
    records_per_s: float
    is_measured: bool
    how: str = ""

    @property
    def records(self) -> int:
        return self.archive_records + self.kafka_records

    @property
    def seconds(self) -> float:
        """Time to build and to prove, about; the proof reads the log once more."""
        return self.records / self.records_per_s

    def as_json(self) -> dict[str, Any]:
        """The estimate as plain values."""
        return {**asdict(self), "records": self.records, "seconds": round(self.seconds, 1)}


def estimate(composition: Composition, name: str, plan: Plan, topics: Sequence[str], numbers: tuple[int, int], rows: dict[str, int],
             folder: Path, how: str = "") -> Estimate:  # fmt: skip
    """Add up a plan.

    Args:
        numbers: the generation that would be built, and the one it would replace.
        folder: where earlier rebuilds have left their rates.
    """
    objects = plan.archived_objects()
    ends = composition.log.ends(topics)
    starts = composition.log.starts(topics)
    begins = {tp: max(plan.kafka.get(tp, 0), starts[tp]) for tp in ends}
    in_kafka = {tp: max(0, end - begins[tp]) for tp, end in ends.items()}
    rate = _rate(folder, name)
    return Estimate(
        name, *numbers,
        archive_objects=len(objects),
        archive_records=sum(max(0, end - plan.start.get(tp, 0)) for tp, end in plan.seams.items()),
        archive_bytes=sum(thing.size for thing in objects),
        kafka_records=sum(in_kafka.values()),
        kafka_bytes=_kafka_bytes(composition, topics, begins, ends),
        rows=rows,
        records_per_s=rate or BENCH_RATES.get(name, OTHER_RATE),
        is_measured=rate is not None,
        how=how,
    )  # fmt: skip


def keep_rate(folder: Path, name: str, records: int, seconds: float) -> None:
    """Remember how fast a rebuild was, for the next estimate. A short one says little and is not kept."""
    if seconds >= 1.0 and records:
        (folder / f"{name}-rate.json").write_text(json.dumps({"records_per_s": records / seconds}), "utf-8")


def _rate(folder: Path, name: str) -> float | None:
    with suppress(OSError, ValueError, KeyError):
        return float(json.loads((folder / f"{name}-rate.json").read_text("utf-8"))["records_per_s"])
    return None


def _kafka_bytes(composition: Composition, topics: Sequence[str], begins: Position, ends: Position) -> int:
    """About how many bytes of keys, values and headers Kafka would send: the last records of each partition stand for all."""
    found = 0
    for topic in topics:
        parts = {tp: end for tp, end in ends.items() if tp[0] == topic and end > begins[tp]}
        sample = {tp: max(begins[tp], end - SAMPLE) for tp, end in parts.items()}
        records = size = 0
        for batch in read_batches(composition.clients.kafka, [topic], sample, parts, sample):
            records += len(batch)
            size += sum(len(key or b"") + len(value or b"") for key, value in zip(batch.keys, batch.values, strict=True))
            size += sum(len(name) + len(value or b"") for headers in batch.headers for name, value in headers or ())
        wanted = sum(end - begins[tp] for tp, end in parts.items())
        found += round(wanted * size / records) if records else 0
    return found
