"""The ledger of sent effects: which were sent, and the position up to which all were. SQLite, one file a reactor."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domain.log import Position
from projections.errors import StoreUnavailable

BUSY_S = 30.0  # a write waits for another process's (a resend beside the worker): each is one row, so only a stalled disk takes this long


class SqliteLedger:
    """`projections.work.Ledger` in a file. Several processes may hold it at once.

    Raises:
        StoreUnavailable: by each method too: the file cannot be read or written, for example because the disk is full. What was noted
            before is noted still.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        with self._translated():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(file, isolation_level=None, timeout=BUSY_S)
            self._database.executescript(
                """
                PRAGMA journal_mode = WAL;
                CREATE TABLE IF NOT EXISTS sent_effect (effect_id TEXT PRIMARY KEY);
                CREATE TABLE IF NOT EXISTS position (topic TEXT, partition INTEGER, next_offset INTEGER, PRIMARY KEY (topic, partition));
                """
            )

    def load_position(self) -> Position:
        """See `projections.work.Ledger`."""
        with self._translated():
            rows = self._database.execute("SELECT topic, partition, next_offset FROM position").fetchall()
        return {(topic, partition): offset for topic, partition, offset in rows}

    def was_sent(self, effect_id: str) -> bool:
        """See `projections.work.Ledger`."""
        with self._translated():
            return self._database.execute("SELECT 1 FROM sent_effect WHERE effect_id = ?", (effect_id,)).fetchone() is not None

    def mark_sent(self, effect_id: str) -> None:
        """See `projections.work.Ledger`."""
        with self._translated():
            self._database.execute("INSERT OR IGNORE INTO sent_effect VALUES (?)", (effect_id,))

    def store_position(self, position: Position) -> None:
        """See `projections.work.Ledger`."""
        rows = [(topic, partition, offset) for (topic, partition), offset in position.items()]
        with self._translated():
            self._database.executemany("INSERT OR REPLACE INTO position VALUES (?, ?, ?)", rows)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise StoreUnavailable(
                f"{self._file} cannot be read or written: {error}. Make room on that disk and start the worker again: an effect that it"
                " could not note is sent once more, with the same id"
            ) from error
