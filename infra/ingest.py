"""Ingestion: a source becomes commands, its refused rows go to quarantine whole, and every row is accounted for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from domain.commands import DescribeWallet, LabelWallet
from domain.log import NewRecord, Record
from infra.composition import Composition
from infra.pseudonym_key import pseudonym_key
from infra.read_your_write import token_now
from infra.sources.descriptions import read_descriptions
from infra.sources.errors import SourceCutShort, SourceError
from infra.sources.labels import read_labels
from infra.sources.mapping import AnyMapping, DescriptionMapping, LabelMapping, PriceMapping
from infra.sources.prices import read_prices
from infra.sources.reading import Progress, RejectedRow, read, read_in_time_order
from infra.sources.shipped import any_mapping, detect, header_of
from projections.quarantine import QuarantineEntry, as_record
from schema_registry.contracts import COMMANDS, PRICE_EVENTS
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
    description_commands: int = 0
    prices: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cut_short: str | None = None
    token: str = ""

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        rate = round(self.rows_read / self.seconds, 1) if self.seconds else None
        return {
            "ingest_id": self.ingest_id, "source": self.source, "mapping": self.mapping, "rows_read": self.rows_read,
            "commands": self.commands, "label_commands": self.label_commands,
            "description_commands": self.description_commands, "prices": self.prices, "refused": self.refused,
            "seconds": round(self.seconds, 3), "rows_per_s": rate, "cut_short": self.cut_short, "token": self.token,
        }  # fmt: skip


class UnknownFormat(SourceError):
    """No shipped mapping fits the source's columns."""


def mapping_for(source: str, mapping: str | None) -> AnyMapping:
    """The mapping named, or the shipped one that fits the source's header.

    Raises:
        UnknownFormat: none fits.
        SourceError: the mapping or the source cannot be read.
    """
    if mapping is not None:
        return any_mapping(mapping)
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
        return ingest_labels(composition, source, known_at=known_at, mapping=chosen)
    if isinstance(chosen, DescriptionMapping):
        return ingest_descriptions(composition, source, chosen, known_at or datetime.now(UTC))
    if isinstance(chosen, PriceMapping):
        return ingest_prices(composition, source, chosen, progress=progress)
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
    composition: Composition,
    source: str,
    *,
    known_at: datetime | None = None,
    only: Container[str] | None = None,
    mapping: LabelMapping | None = None,
) -> IngestResult:
    """Send a file of wallet labels as `LabelWallet` commands.

    Args:
        only: the wallets whose labels may be sent, all when none is given.
        mapping: of the file; by default the shipped one that fits.

    Raises:
        SourceError: the file cannot be read, or no shipped mapping of labels fits it.
        LogError: Kafka does not take the commands.
    """
    found = mapping or detect(header_of(source))
    if not isinstance(found, LabelMapping):
        raise UnknownFormat(f"{source}: no shipped mapping of labels fits its columns")
    key = pseudonym_key(composition.settings.stack_dir) if found.needs_key else None
    started = time.monotonic()
    file = read_labels(source, found, known_at or datetime.now(UTC), only, key)
    result = _send(composition, source, found.title, file.commands, file.rejected, file.rows_read, started)
    result.label_commands = len(file.commands)
    return result


def ingest_descriptions(composition: Composition, source: str, mapping: DescriptionMapping, known_at: datetime) -> IngestResult:
    """Send a file of reference data as `DescribeWallet` commands, each valid from when it became known.

    Raises:
        SourceError: the file cannot be read.
        LogError: Kafka does not take the commands.
    """
    key = pseudonym_key(composition.settings.stack_dir) if mapping.needs_key else None
    started = time.monotonic()
    file = read_descriptions(source, mapping, known_at, key)
    result = _send(composition, source, mapping.title, file.commands, file.rejected, file.rows_read, started)
    result.description_commands = len(file.commands)
    return result


def ingest_prices(
    composition: Composition, source: str, mapping: PriceMapping, *, progress: Callable[[IngestProgress], None] = lambda report: None
) -> IngestResult:
    """Append a file of prices as `AssetPriced` events, past the command topic: a price decides nothing and is refused by nobody.

    Safe to run again: the same price at the same time says nothing new.

    Raises:
        SourceError: the file cannot be read; what was read before is appended.
        LogError: Kafka does not take the events.
    """
    started = time.monotonic()
    result = IngestResult(new_ingest_id(source), source, mapping.title)
    codec = RecordCodec(composition.clients.catalog)
    refused: Counter[str] = Counter()
    try:
        for chunk in read_prices(source, mapping):
            events = chunk.events
            composition.producer.send(PRICE_EVENTS, [event.asset.encode() for event in events], [codec.encode_event(x) for x in events])
            composition.quarantine.append([_quarantined(codec, source, row) for row in chunk.rejected])
            refused.update(row.reason for row in chunk.rejected)
            result.rows_read = chunk.progress.rows_read
            result.prices += len(events)
            progress(IngestProgress(chunk.progress, result.prices, sum(refused.values()), time.monotonic() - started))
    except SourceCutShort as error:
        result.cut_short = str(error)
    composition.producer.flush()
    result.refused = dict(sorted(refused.items()))
    result.seconds = time.monotonic() - started
    result.token = str(token_now(composition))
    return result


def _send(
    composition: Composition,
    source: str,
    title: str,
    commands: Sequence[LabelWallet] | Sequence[DescribeWallet],
    rejected: Sequence[RejectedRow],
    rows_read: int,
    started: float,
) -> IngestResult:
    codec = RecordCodec(composition.clients.catalog)
    composition.producer.send(COMMANDS, [c.wallet_id.encode() for c in commands], [codec.encode_event(c) for c in commands])
    composition.quarantine.append([_quarantined(codec, source, row) for row in rejected])  # waits for the commands too
    refused = Counter(row.reason for row in rejected)
    return IngestResult(
        new_ingest_id(source), source, title, rows_read, refused=dict(sorted(refused.items())), seconds=time.monotonic() - started,
        token=str(token_now(composition)),
    )  # fmt: skip


def new_ingest_id(source: str) -> str:
    """A name for a run: the file's and the moment's."""
    stem = "stream" if source == "-" else Path(source).name.split(".")[0]
    return f"{stem[:60]}-{datetime.now(UTC):%Y%m%dT%H%M%S}"


def _quarantined(codec: RecordCodec, source: str, row: RejectedRow) -> NewRecord:
    name = "-" if source == "-" else Path(source).name
    record = Record(f"file:{name}", 0, row.row, int(time.time() * 1000), None, row.raw)
    return as_record(codec, QuarantineEntry(INGESTION, record, row.reason, row.message, 1))
