"""The key that turns people's ids into pseudonyms: made once per stack, readable by its owner alone, never shown."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

KEY_BYTES = 32


def pseudonym_key(folder: Path) -> bytes:
    """The key kept in `folder`, made at the first call. Losing it means that the same person gets another pseudonym."""
    file = folder / "pseudonym.key"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_bytes()
    with os.fdopen(descriptor, "wb") as out:
        out.write(secrets.token_bytes(KEY_BYTES))
    return file.read_bytes()
