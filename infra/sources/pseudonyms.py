"""Keyed pseudonyms: the same person gets the same name for the same key, and nobody without the key can go back.

Source: BLAKE2 (RFC 7693) in keyed mode, 128 bits, personalised by purpose so that a card and a customer never meet.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa

from infra.sources.errors import MappingError

MIN_KEY_BYTES = 16
MAX_KEY_BYTES = 64  # what BLAKE2b takes
_CACHED = 1 << 18  # pseudonyms remembered between chunks, about 50 MB; more only costs time


def wallet_pseudonyms(title: str, needs_key: bool, key: bytes | None) -> Pseudonyms | None:
    """What makes pseudonyms of a file's wallets; None where there is no key and none is needed.

    Args:
        title: of the mapping.
        key: 16 to 64 secret bytes.

    Raises:
        MappingError: the mapping makes pseudonyms and there is no key.
        ValueError: a key of another length.
    """
    if needs_key and key is None:
        raise MappingError(title, {"wallet.pseudonym": "expected a secret key for pseudonyms, found none"})
    return Pseudonyms(key) if key is not None else None


class Pseudonyms:
    """Makes pseudonyms with one key.

    Args:
        key: 16 to 64 secret bytes.

    Raises:
        ValueError: a key of another length.
    """

    def __init__(self, key: bytes) -> None:
        if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
            raise ValueError(f"expected a pseudonym key of {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes, found {len(key)}")
        self._key = key
        self._known: dict[tuple[str, str], str] = {}

    def of(self, purpose: str, value: str) -> str:
        """32 hex digits for `value`; `purpose` has at most 16 ASCII characters."""
        found = self._known.get((purpose, value))
        if found is None:
            digest = hashlib.blake2b(value.encode(), digest_size=16, key=self._key, person=purpose.encode())
            found = digest.hexdigest()
            if len(self._known) >= _CACHED:
                self._known.clear()
            self._known[(purpose, value)] = found
        return found

    def column(self, purpose: str, values: pa.Array) -> pa.Array:
        """A column [n] of pa.string with every value replaced; null stays null."""
        distinct = values.dictionary_encode()
        names = pa.array([self.of(purpose, value) for value in distinct.dictionary.to_pylist()], pa.string())
        return names.take(distinct.indices)
