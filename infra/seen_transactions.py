"""Which transactions the log holds, on disk: LMDB, written after the Kafka commit and never before.

It remembers up to which position of the log it is true; what came later is read back from the log at start. Losing it loses time,
nothing else.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import lmdb

from domain.log import Position

MAP_SIZE = 64 << 30  # bytes of address space, not of disk: room for a billion transactions
_STATE = b"\x00state"
_SEQ = struct.Struct(">q")


class SeenTransactions:
    """A 16-byte key a transaction, with the 8-byte digest of what was recorded under it.

    Args:
        folder: where it lives; one process at a time writes.
        log_id: names the log that it mirrors; a store of another log is emptied.
    """

    def __init__(self, folder: Path, log_id: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # No fsync: after a crash of the machine LMDB may be older than the log, and then the log is read from there.
        self._env = lmdb.open(str(folder), map_size=MAP_SIZE, sync=False, metasync=False, writemap=False, readahead=False)
        with self._env.begin(write=True) as transaction:
            kept = transaction.get(b"\x00log")
            if kept != log_id.encode():
                transaction.drop(self._env.open_db(None, txn=transaction), delete=False)
                transaction.put(b"\x00log", log_id.encode())

    def digests(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `domain.handler.SeenTransactions`."""
        with self._env.begin() as transaction, transaction.cursor() as cursor:
            kept = dict(cursor.getmulti(keys))
        return [kept.get(key) for key in keys] if kept else [None] * len(keys)

    def add(self, digests: Mapping[bytes, bytes], next_seq: int, position: Position) -> None:
        """Remember transactions of the log, and that all up to `position` of its topic are known."""
        with self._env.begin(write=True) as transaction:
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


def key_of(tx_id: bytes) -> bytes:
    """16 bytes that stand for a tx_id; keys never begin with a zero byte, which our own entries do."""
    return b"t" + blake2b(tx_id, digest_size=15).digest()


def digest_of(what_happened: bytes) -> bytes:
    """8 bytes that stand for a transaction's record without its origin."""
    return blake2b(what_happened, digest_size=8).digest()
