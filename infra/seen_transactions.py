"""Which transactions the log holds, on disk: LMDB, written after the Kafka commit and never before.

It remembers up to which position of the log it is true; what came later is read back from the log at start. Losing it loses time,
nothing else. Names and digests are keyed with a secret of the store's own: nobody can send two transactions that it takes for one.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb
import numpy as np

from domain.log import Position
from infra.keyed_hash import KEY_BYTES, Bytes, Ints, keyed_hashes
from projections.errors import StoreUnavailable

MAP_SIZE = 64 << 30  # bytes of address space, not of disk: room for a billion transactions
_LOG, _SECRET, _STATE = b"\x00log", b"\x00secret", b"\x00state"
_FORMAT = "siphash-1"  # how keys and digests are made; a store of another format is emptied and filled from the log
_SEQ = struct.Struct(">q")


class SeenTransactions:
    """A 16-byte key a transaction, with what `domain.revision` keeps of it.

    Args:
        folder: where it lives; one process at a time writes.
        log_id: names the log that it mirrors; a store of another log is emptied.

    Raises:
        StoreUnavailable: the folder cannot be written, for example because the disk is full.
    """

    def __init__(self, folder: Path, log_id: str) -> None:
        self.folder = folder
        with self._translated():
            folder.mkdir(parents=True, exist_ok=True)
            self._open(log_id)

    def _open(self, log_id: str) -> None:
        # No fsync: after a crash of the machine LMDB may be older than the log, and then the log is read from there.
        self._env = lmdb.open(str(self.folder), map_size=MAP_SIZE, sync=False, metasync=False, writemap=False, readahead=False)
        with self._env.begin(write=True) as transaction:
            # One entry names both, so that a version of this code that knows no format finds another log's store and empties it too.
            mirrored = f"{_FORMAT} {log_id}".encode()
            if transaction.get(_LOG) != mirrored:
                transaction.drop(self._env.open_db(None, txn=transaction), delete=False)
                transaction.put(_LOG, mirrored)
                transaction.put(_SECRET, os.urandom(KEY_BYTES))
            self._secret = transaction.get(_SECRET) or b""

    def keys_of(self, buffer: Bytes, starts: Ints, ends: Ints) -> list[bytes]:
        """16 bytes for each tx_id `buffer[starts[i]:ends[i]]`; they never begin with a zero byte, which our own entries do."""
        hashes = keyed_hashes(buffer, starts, ends, self._secret)
        hashes[:, 0] = ord("t")
        return _slices(hashes)

    def key_of(self, tx_id: str) -> bytes:
        """The key of one tx_id."""
        name = np.frombuffer(tx_id.encode(), np.uint8)
        return self.keys_of(name, np.zeros(1, np.int64), np.array([len(name)], np.int64))[0]

    def digests_of(self, buffer: Bytes, starts: Ints, ends: Ints) -> list[bytes]:
        """8 bytes for what happened in each transaction: its record without framing and origin, `buffer[starts[i]:ends[i]]`."""
        return _slices(np.ascontiguousarray(keyed_hashes(buffer, starts, ends, self._secret)[:, :8]))

    def digests(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `domain.handler.SeenTransactions`."""
        with self._env.begin() as transaction, transaction.cursor() as cursor:
            kept = dict(cursor.getmulti(keys))
        return [kept.get(key) for key in keys] if kept else [None] * len(keys)

    def known(self, tx_id: str) -> bytes | None:
        """See `domain.handler.SeenTransactions`."""
        return self.digests([self.key_of(tx_id)])[0]

    def add(self, digests: Mapping[bytes, bytes], next_seq: int, position: Position) -> None:
        """Remember transactions of the log, and that all up to `position` of its topic are known.

        Raises:
            StoreUnavailable: the disk does not take it; what was known before is known still.
        """
        with self._translated(), self._env.begin(write=True) as transaction:
            with transaction.cursor() as cursor:
                cursor.putmulti(list(digests.items()))
            transaction.put(_STATE, _SEQ.pack(next_seq) + json.dumps([[t, p, o] for (t, p), o in sorted(position.items())]).encode())

    def state(self) -> tuple[int, Position]:
        """The next seq and the position of `transaction-events` up to which this is true."""
        with self._env.begin() as transaction:
            kept = transaction.get(_STATE)
        if kept is None:
            return 0, {}
        return _SEQ.unpack_from(kept)[0], {(t, p): o for t, p, o in json.loads(kept[_SEQ.size :])}

    def close(self) -> None:
        """Release the files."""
        self._env.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, OSError) as error:
            raise StoreUnavailable(
                f"{self.folder} cannot be written: {error}. The log has all that it should hold: make room on that disk and start the"
                " handler again, it goes on from there"
            ) from error


def _slices(rows: Bytes) -> list[bytes]:
    found: list[bytes] = rows.view(f"V{rows.shape[1]}").ravel().tolist()
    return found
