"""What is remembered of a tx_id, in bytes: the digest of what was recorded under it, and whether that was taken back.

A transaction that was voided may be recorded again with another payload: its next revision. The same payload again is still a
duplicate, so that a producer's retry does not bring back what was withdrawn. Every state follows from the log: of two facts the one
with the larger seq wins, whatever order a restart reads them in.

    digest                     recorded once
    digest, seq                recorded again, at seq
    digest, seq, one byte      voided; seq is that of the last transaction before the void
"""

from __future__ import annotations

import struct
from typing import Final

DIGEST_BYTES: Final = 8
_SEQ: Final = struct.Struct(">q")
_REVISED: Final = DIGEST_BYTES + _SEQ.size
_VOIDED: Final = _REVISED + 1


def digest_of(kept: bytes) -> bytes:
    """The digest of the last payload recorded."""
    return kept[:DIGEST_BYTES]


def seq_of(kept: bytes) -> int | None:
    """The seq that a later revision was recorded at, or that a void stands after; none for what was recorded once."""
    return None if len(kept) == DIGEST_BYTES else int(_SEQ.unpack_from(kept, DIGEST_BYTES)[0])


def is_voided(kept: bytes) -> bool:
    """Whether the last payload was taken back."""
    return len(kept) == _VOIDED


def revised(digest: bytes, seq: int) -> bytes:
    """What is kept of a revision recorded at `seq`."""
    return digest + _SEQ.pack(seq)


def voided(kept: bytes, seq: int) -> bytes:
    """What is kept once a void after `seq` was appended; unchanged where the log recorded a revision after that void."""
    at = seq_of(kept)
    return kept if (at is not None and at > seq) or is_voided(kept) else digest_of(kept) + _SEQ.pack(seq) + b"v"


def recorded(kept: bytes | None, digest: bytes, seq: int) -> bytes:
    """What is kept once `digest` is found recorded at `seq`, be that new or read again."""
    if kept is None or digest_of(kept) == digest:
        return kept or digest
    at = seq_of(kept)
    return revised(digest, seq) if at is None or seq >= at else kept
