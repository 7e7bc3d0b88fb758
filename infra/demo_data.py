"""What a demo runs on: the file, its labels, its cut, and the rows that are ingested, streamed and judged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from infra.pseudonym_key import pseudonym_key
from infra.settings import Settings, Size, Span
from infra.sources.cut import Cut, cut_of
from infra.sources.errors import UnreadableSource
from infra.sources.labels import read_labels
from infra.sources.mapping import LabelMapping, TransactionMapping
from infra.sources.reading import read, read_in_time_order
from infra.sources.shipped import detect, header_of, transaction_mapping
from schema_registry.catalog import SchemaCatalog

SHARED = Path("shared") / "data" / "ethereum_labelled"
SIMULATED_TRANSACTIONS = 60_000
SMALL_BEFORE, SMALL_AFTER = 4_000, 1_000  # rows on either side of the cut in a small demo


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """The files of a demo. `labels` is none where the rows carry their own labels, or nothing is known."""

    data: Path
    labels: Path | None
    mapping: str | None
    is_simulated: bool


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Rows [first, cut) are ingested at once, [cut, last) streamed; of those the ones from `paced` on at a fixed rate.

    `training` are labels known at the cut, by wallet or tx_id; `judged` those that only the evaluator sees.
    """

    files: DemoFiles
    mapping: TransactionMapping
    label_mapping: LabelMapping | None
    first: int
    cut: int
    last: int
    paced: int
    cut_at: datetime
    is_sorted: bool
    labels_are_of: str
    training: Mapping[str, str]
    judged: Mapping[str, str]
    span: Span
    size: Size

    @property
    def has_labels(self) -> bool:
        """Whether there is anything to learn."""
        return bool(self.training)

    def as_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {
            "data": str(self.files.data), "labels": str(self.files.labels) if self.files.labels else None, "mapping": self.mapping.title,
            "is_simulated": self.files.is_simulated, "first_row": self.first, "cut_row": self.cut, "last_row": self.last,
            "paced_row": self.paced, "cut_at": self.cut_at.isoformat(), "labels_are_of": self.labels_are_of,
            "training_labels": len(self.training), "judged_labels": len(self.judged), "span": self.span, "size": self.size,
        }  # fmt: skip


def files_of(settings: Settings, project: Path) -> DemoFiles | None:
    """The files that the settings name, else the labelled Ethereum transfers beside the project; none for the simulator's stream."""
    if settings.data is not None:
        return DemoFiles(settings.data.absolute(), settings.labels.absolute() if settings.labels else None, settings.mapping, False)
    folder = project.parent / SHARED
    if (folder / "transactions.csv.gz").is_file():
        return DemoFiles(folder / "transactions.csv.gz", folder / "labels.csv", "ethereum", False)
    return None


def stack_name(settings: Settings, files: DemoFiles | None) -> str:
    """The stack of a demo: each data file, span and size has its own state."""
    parts = [settings.stack]
    if settings.data is not None and files is not None:
        stat = files.data.stat() if files.data.exists() else None
        print_ = f"{files.data}|{files.labels}|{files.mapping}|{stat.st_size if stat else 0}|{stat.st_mtime_ns if stat else 0}"
        parts.append(hashlib.blake2b(print_.encode(), digest_size=4).hexdigest())
    if settings.size == "small":
        parts.append("small")
    if settings.span == "validation":
        parts.append("validation")
    return "-".join(parts)


def simulated(folder: Path, seed: int) -> DemoFiles:
    """The simulator's stream as files in `folder`, made once: the truth stands apart from the transactions."""
    from infra.simulator.delivery import write_stream, write_truth
    from infra.simulator.generator import SimulatorOptions, simulate

    data, labels, schemes = folder / f"stream-{seed}.parquet", folder / f"labels-{seed}.csv", folder / f"schemes-{seed}.jsonl"
    if not (data.exists() and labels.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        simulation = simulate(SimulatorOptions(count=SIMULATED_TRANSACTIONS, seed=seed))
        write_truth(simulation, labels, schemes)
        write_stream(simulation, data)
    return DemoFiles(data, labels, None, True)


def plan_of(files: DemoFiles, settings: Settings) -> DemoPlan:
    """Read file and labels once and say what is ingested, streamed and judged.

    Raises:
        SourceError: a file or its mapping cannot be read.
    """
    mapping = transaction_mapping(files.mapping) if files.mapping is not None else _detected(files.data)
    key = pseudonym_key(settings.stack_dir) if mapping.needs_key else None
    labels: dict[str, str] = {}
    found: LabelMapping | None = None
    if files.labels is not None:
        candidate = detect(header_of(files.labels))
        if not isinstance(candidate, LabelMapping):
            raise UnreadableSource(f"{files.labels}: no shipped mapping of labels fits its columns")
        found = candidate
        labels = read_labels(files.labels, found, datetime.fromtimestamp(0).astimezone(), key=key).by_wallet()
    # Where each wallet's whole life is in the file, a wallet's first transaction is the fair cut; elsewhere time is.
    by: Literal["wallets", "rows"] = "wallets" if mapping.name == "ethereum" else "rows"
    cut = cut_of(files.data, mapping, labels or None, by=by, key=key)
    at = cut.occurred_at if settings.span == "test" else _time_of(files, mapping, cut, key)
    return _planned(files, mapping, found, cut, at, settings.span, settings.size)


def _time_of(files: DemoFiles, mapping: TransactionMapping, cut: Cut, key: bytes | None) -> datetime:
    """When the first accepted row from the validation cut on happened."""
    row = cut.validation_row
    for chunk in (read if cut.is_sorted else read_in_time_order)(
        files.data, mapping, ingest_id="cut", catalog=SchemaCatalog.numbered(), key=key, first_row=row, last_row=row + 100
    ):
        if chunk.first_occurred_at is not None:
            return chunk.first_occurred_at
    raise UnreadableSource(f"{files.data}: no accepted row at the cut, row {row}")


def _planned(
    files: DemoFiles, mapping: TransactionMapping, labels: LabelMapping | None, cut: Cut, cut_at: datetime, span: Span, size: Size
) -> DemoPlan:
    at, last = (cut.row, cut.rows) if span == "test" else (cut.validation_row, cut.row)
    judged = cut.test if span == "test" else cut.validation
    training = {name: label for name, label in cut.training.items() if span == "test" or name not in cut.validation}
    first = 0
    if size == "small":
        first, last = max(0, at - SMALL_BEFORE), min(last, at + SMALL_AFTER)
    streamed = last - at
    paced = last - min(12_000, streamed // 5) if size == "full" else last - min(1_000, streamed // 5)
    return DemoPlan(files, mapping, labels, first, at, last, paced, cut_at, cut.is_sorted, cut.labels_are_of, training, judged, span, size)


def _detected(data: Path) -> TransactionMapping:
    from infra.ingest import mapping_for

    found = mapping_for(str(data), None)
    if not isinstance(found, TransactionMapping):
        raise UnreadableSource(f"{data}: holds labels, not transactions; give it as LABELS=")
    return found
