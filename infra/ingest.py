"""Ingestion: a source becomes commands, its refused rows go to quarantine whole, and every row is accounted for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from domain.log import NewRecord, Record
from infra.composition import Composition
from infra.pseudonym_key import pseudonym_key
from infra.read_your_write import token_now
from infra.sources.errors import SourceCutShort, SourceError
from infra.sources.labels import read_labels
from infra.sources.mapping import LabelMapping, TransactionMapping
from infra.sources.reading import Progress, RejectedRow, read, read_in_time_order
from infra.sources.shipped import detect, header_of, label_mapping, transaction_mapping
from projections.quarantine import QuarantineEntry, as_record
from schema_registry.contracts import COMMANDS
from schema_registry.record_codec import RecordCodec

INGESTION = "ingest"
"""Who put a row into quarantine that never became a command."""


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far ingestion is: `sent` commands out of rows read, at a rate; the estimate is none on a stream."""

    source: Progress
    sent: int
    rejected: int
    seconds: float


@dataclass(slots=True)
class IngestResult:
    """What became of a source: rows read = commands + refused; refused rows are in quarantine, counted by reason.

    `token` names the place in the command topic after its last command: `wait_for` and `tidemark wait` take it.
    """

    ingest_id: str
    source: str
    mapping: str
    rows_read: int = 0
    commands: int = 0
    label_commands: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cut_short: str | None = None
    token: str = ""

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        rate = round(self.rows_read / self.seconds, 1) if self.seconds else None
        return {
            "ingest_id": self.ingest_id, "source": self.source, "mapping": self.mapping, "rows_read": self.rows_read,
            "commands": self.commands, "label_commands": self.label_commands, "refused": self.refused,
            "seconds": round(self.seconds, 3), "rows_per_s": rate, "cut_short": self.cut_short, "token": self.token,
        }  # fmt: skip


class UnknownFormat(SourceError):
    """No shipped mapping fits the source's columns."""


def mapping_for(source: str, mapping: str | None) -> TransactionMapping | LabelMapping:
    """The mapping named, or the shipped one that fits the source's header.

    Raises:
        UnknownFormat: none fits.
        SourceError: the mapping or the source cannot be read.
    """
    if mapping is not None:
        return transaction_mapping(mapping)
    if source == "-":
        raise UnknownFormat("a stream has no header to look at: name its mapping with --mapping")
    found = detect(header_of(source))
    if found is None:
        raise UnknownFormat(f"{source}: no shipped mapping fits its columns: draft one with `tidemark ingest {source} --suggest`")
    return found


def ingest_file(
    composition: Composition,
    source: str,
    mapping: str | None = None,
    *,
    labels: str | None = None,
    ingest_id: str | None = None,
    known_at: datetime | None = None,
    first_row: int = 0,
    last_row: int | None = None,
    has_labels: bool = True,
    in_time_order: bool = False,
    stream: BinaryIO | None = None,
    progress: Callable[[IngestProgress], None] = lambda report: None,
) -> IngestResult:
    """Send a source's rows as commands, in its order; then its labels, if given.

    Safe to run again: the same rows give the same transactions, which are recorded once.

    Args:
        labels: a file of wallet labels to ingest too.
        known_at: when labels (of that file, or in the rows themselves) became known; now, when none is given.
        first_row, last_row: the rows wanted, from 0, the last one left out.
        has_labels: whether labels in the rows themselves are sent too; without, they stay unread.
        in_time_order: sort a file that is not in order of time; rows then count the accepted ones in that order.
        stream: read instead of a file, where `source` is `-`.

    Raises:
        SourceError: the source or the mapping cannot be read; what was read before is ingested.
        LogError: Kafka does not take the commands.
    """
    chosen = mapping_for(source, mapping)
    if isinstance(chosen, LabelMapping):
        return ingest_labels(composition, source, known_at=known_at)
    at = known_at or datetime.now(UTC)
    key = pseudonym_key(composition.settings.stack_dir) if chosen.needs_key else None
    result = IngestResult(ingest_id or new_ingest_id(source), source, chosen.title)
    codec = RecordCodec(composition.clients.catalog)
    started = time.monotonic()
    refused: Counter[str] = Counter()
    chunks = (read_in_time_order if in_time_order else read)(
        stream if stream is not None else source, chosen, ingest_id=result.ingest_id, catalog=composition.clients.catalog, key=key,
        first_row=first_row, last_row=last_row, labels_known_at=at if has_labels and chosen.label is not None else None,
    )  # fmt: skip
    producer = composition.producer
    try:
        for chunk in chunks:
            producer.send(COMMANDS, chunk.keys, chunk.values)
            if chunk.labels:
                producer.send(COMMANDS, [label.tx_id.encode() for label in chunk.labels], [codec.encode_event(x) for x in chunk.labels])
            if chunk.rejected:
                composition.quarantine.append([_quarantined(codec, source, row) for row in chunk.rejected])
            refused.update(row.reason for row in chunk.rejected)
            result.rows_read += chunk.rows_read
            result.commands += len(chunk.values)
            result.label_commands += len(chunk.labels)
            progress(IngestProgress(chunk.progress, result.commands, sum(refused.values()), time.monotonic() - started))
            if source == "-":
                producer.flush()
    except SourceCutShort as error:
        result.cut_short = str(error)
    producer.flush()
    result.refused = dict(sorted(refused.items()))
    result.seconds = time.monotonic() - started
    if labels is not None:
        result.label_commands += ingest_labels(composition, labels, known_at=at).label_commands
    result.token = str(token_now(composition))
    return result


def ingest_labels(
    composition: Composition, source: str, *, known_at: datetime | None = None, only: Container[str] | None = None
) -> IngestResult:
    """Send a file of wallet labels as `LabelWallet` commands.

    Args:
        only: the wallets whose labels may be sent, all when none is given.

    Raises:
        SourceError: the file cannot be read, or no shipped mapping of labels fits it.
        LogError: Kafka does not take the commands.
    """
    found = detect(header_of(source))
    if not isinstance(found, LabelMapping):
        raise UnknownFormat(f"{source}: no shipped mapping of labels fits its columns")
    key = pseudonym_key(composition.settings.stack_dir) if found.needs_key else None
    started = time.monotonic()
    file = read_labels(source, label_mapping(found.title.split("@")[0]), known_at or datetime.now(UTC), only, key)
    codec = RecordCodec(composition.clients.catalog)
    producer = composition.producer
    producer.send(COMMANDS, [c.wallet_id.encode() for c in file.commands], [codec.encode_event(c) for c in file.commands])
    composition.quarantine.append([_quarantined(codec, source, row) for row in file.rejected])  # waits for the commands too
    refused = Counter(row.reason for row in file.rejected)
    return IngestResult(
        new_ingest_id(source), source, found.title, file.rows_read, 0, len(file.commands), dict(sorted(refused.items())),
        time.monotonic() - started, token=str(token_now(composition)),
    )  # fmt: skip


def new_ingest_id(source: str) -> str:
    """A name for a run: the file's and the moment's."""
    stem = "stream" if source == "-" else Path(source).name.split(".")[0]
    return f"{stem[:60]}-{datetime.now(UTC):%Y%m%dT%H%M%S}"


def _quarantined(codec: RecordCodec, source: str, row: RejectedRow) -> NewRecord:
    name = "-" if source == "-" else Path(source).name
    record = Record(f"file:{name}", 0, row.row, int(time.time() * 1000), None, row.raw)
    return as_record(codec, QuarantineEntry(INGESTION, record, row.reason, row.message, 1))
