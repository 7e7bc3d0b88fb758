"""Label files: truth about wallets, one row a wallet, as commands."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from domain.commands import LabelWallet
from infra.sources.conversion import TextColumns
from infra.sources.mapping import LabelMapping
from infra.sources.pseudonyms import Pseudonyms, wallet_pseudonyms
from infra.sources.raw_rows import RawRows
from infra.sources.readers import open_rows
from infra.sources.reading import CHUNK_ROWS, RejectedRow, Source, rejected_rows
from infra.sources.rules import check_wallet_ids


@dataclass(frozen=True, slots=True)
class LabelFile:
    """What a label file says: the commands in its order, the rows refused, and how many wallets it left unlabelled."""

    commands: list[LabelWallet]
    rejected: list[RejectedRow]
    rows_read: int
    unlabelled: int

    def by_wallet(self) -> dict[str, str]:
        """wallet id → label; of several labels of a wallet the last counts."""
        return {command.wallet_id: command.label for command in self.commands}


def read_labels(
    source: Source,
    mapping: LabelMapping,
    known_at: datetime,
    only: Container[str] | None = None,
    key: bytes | None = None,
) -> LabelFile:
    """Read a label file whole: it has a row a wallet, so it is small beside its transactions.

    Args:
        source: a path, `-` or a binary stream.
        mapping: which column says what.
        known_at: when these labels became known; nothing may use them before.
        only: the wallets to give commands for, all when none is given.
        key: 16 to 64 secret bytes, where the mapping makes pseudonyms.

    Raises:
        UnreadableSource, WrongColumns, MappingError, SourceCutShort: as `read`.
    """
    pseudonyms = wallet_pseudonyms(mapping.title, mapping.needs_key, key)
    commands: list[LabelWallet] = []
    rejected: list[RejectedRow] = []
    rows_read = unlabelled = 0
    reader = open_rows(source, lambda header: mapping.columns(), mapping.delimiter)
    for raw in reader.runs(CHUNK_ROWS):
        rows_read += raw.count
        wallets, labels = _run(raw, mapping, pseudonyms)
        rejected += rejected_rows(raw)
        for row in np.flatnonzero(raw.problems.good()).tolist():
            label = mapping.label.label(labels[row])
            if label is None:
                unlabelled += 1
            elif only is None or wallets[row] in only:
                commands.append(LabelWallet(wallets[row], label.value, mapping.label.source, known_at))
    return LabelFile(commands, rejected, rows_read, unlabelled)


def _run(raw: RawRows, mapping: LabelMapping, pseudonyms: Pseudonyms | None) -> tuple[list[str], list[str | None]]:
    texts = TextColumns(raw, mapping.null_texts, None, pseudonyms)
    wallets = texts.identifier(mapping.wallet, mapping.network, "wallet_id")
    check_wallet_ids(wallets, raw.problems)
    return wallets.to_pylist(), texts.column(mapping.label.column).to_pylist()
