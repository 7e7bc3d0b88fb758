"""Reference data: what is known of wallets from outside the stream, one row a wallet and time, as commands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from domain import values
from domain.commands import DescribeWallet
from domain.errors import InvalidValue
from domain.events import WalletKind
from domain.values import EPOCH, MAX_AHEAD
from infra.sources.conversion import TextColumns
from infra.sources.mapping import DescriptionMapping, TextField
from infra.sources.pseudonyms import Pseudonyms, wallet_pseudonyms
from infra.sources.raw_rows import RawRows
from infra.sources.readers import open_rows
from infra.sources.reading import CHUNK_ROWS, RejectedRow, Source, rejected_rows
from infra.sources.rules import check_wallet_ids
from infra.sources.times import micros

_KINDS = tuple(member.value for member in WalletKind if member is not WalletKind.UNKNOWN)


@dataclass(frozen=True, slots=True)
class DescriptionFile:
    """What a file of descriptions says: the commands in its order, and the rows refused."""

    commands: list[DescribeWallet]
    rejected: list[RejectedRow]
    rows_read: int


def read_descriptions(source: Source, mapping: DescriptionMapping, known_at: datetime, key: bytes | None = None) -> DescriptionFile:
    """Read a file of descriptions whole: it has a row a wallet and version, so it is small beside its transactions.

    Args:
        source: a path, `-` or a binary stream.
        mapping: which column says what.
        known_at: when a row that does not say it became known; a join as of an earlier time does not see it.
        key: 16 to 64 secret bytes, where the mapping makes pseudonyms.

    Raises:
        UnreadableSource, WrongColumns, MappingError, SourceCutShort: as `read`.
    """
    pseudonyms = wallet_pseudonyms(mapping.title, mapping.needs_key, key)
    commands: list[DescribeWallet] = []
    rejected: list[RejectedRow] = []
    rows_read = 0
    reader = open_rows(source, lambda header: mapping.columns(), mapping.delimiter)
    for raw in reader.runs(CHUNK_ROWS):
        rows_read += raw.count
        found = _run(raw, mapping, known_at, pseudonyms)
        commands += [found[row] for row in np.flatnonzero(raw.problems.good()).tolist()]
        rejected += rejected_rows(raw)
    return DescriptionFile(commands, rejected, rows_read)


def _run(raw: RawRows, mapping: DescriptionMapping, known_at: datetime, pseudonyms: Pseudonyms | None) -> list[DescribeWallet]:
    texts = TextColumns(raw, mapping.null_texts, None, pseudonyms)
    wallets = texts.identifier(mapping.wallet, mapping.network, "wallet_id")
    check_wallet_ids(wallets, raw.problems)
    kinds, names, countries = (_column(texts, field, name) for field, name in _fields(mapping))
    times = _times(texts, mapping, known_at)
    found = []
    for row, (wallet, kind, name, country, at) in enumerate(zip(wallets.to_pylist(), kinds, names, countries, times, strict=True)):
        if kind not in _KINDS:
            raw.problems.by_row.setdefault(row, ("invalid_kind", f"kind: expected one of {_KINDS}, found {str(kind)[:40]!r}"))
        for field, value in (("name", name), ("country", country)):
            try:
                values.text(field, value or "")
            except InvalidValue as error:
                raw.problems.by_row.setdefault(row, (f"invalid_{field}", str(error)))
        found.append(DescribeWallet(wallet or "", kind or "", name, country, mapping.source, at))
    return found


def _fields(mapping: DescriptionMapping) -> tuple[tuple[TextField | None, str], ...]:
    return (mapping.kind, "kind"), (mapping.public_name, "name"), (mapping.country, "country")


def _column(texts: TextColumns, field: TextField | None, name: str) -> list[str | None]:
    found: list[str | None] = texts.text(field, name).to_pylist() if field is not None else [None] * texts.raw.count
    return found


def _times(texts: TextColumns, mapping: DescriptionMapping, known_at: datetime) -> list[datetime]:
    """When each row became known: by its own column, else as given."""
    if mapping.known_at is None:
        return [known_at] * texts.raw.count
    column = texts.column(mapping.known_at.column)
    found, is_bad, is_early = micros(column, mapping.known_at)
    is_missing = np.asarray(column.is_null())
    is_late = found > (datetime.now(UTC) + MAX_AHEAD - EPOCH) // timedelta(microseconds=1)
    wrong = (is_bad | is_early | is_late) & ~is_missing
    texts.raw.problems.add(
        wrong, "invalid_known_at", lambda row: f"known_at: expected a time that has come, found {str(column[row].as_py())[:40]!r}"
    )
    return [
        known_at if missing or bad else EPOCH + timedelta(microseconds=at)
        for at, missing, bad in zip(found.tolist(), is_missing.tolist(), wrong.tolist(), strict=True)
    ]
