"""Positions as a person keeps them: a JSON file of offsets."""

from __future__ import annotations

from json import loads
from pathlib import Path

import typer


def offsets_of(file: Path) -> dict[tuple[str, int], int]:
    """A position from a JSON file: `topic/partition` → offset.

    Raises:
        typer.BadParameter: it is not one.
    """
    try:
        found = loads(file.read_text("utf-8"))
        return {(name.rpartition("/")[0], int(name.rpartition("/")[2])): int(offset) for name, offset in found.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise typer.BadParameter(f'{file}: expected JSON like {{"transaction-events/0": 1200}}: {error}', param_hint="OFFSETS") from error
