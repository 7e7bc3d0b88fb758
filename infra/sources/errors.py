"""Errors of sources and mappings.

TidemarkError
└── SourceError
    ├── MappingError      a mapping that cannot be used; all its mistakes, keyed by field
    ├── UnreadableSource  no such file, no permission, a folder, an unknown format, nothing in it
    ├── WrongColumns      the source lacks columns that the mapping names; carries missing and found
    └── SourceCutShort    the source ends or breaks in the middle; every whole row before that was delivered
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domain.errors import TidemarkError


class SourceError(TidemarkError):
    """Root of what reading a source raises."""


class MappingError(SourceError):
    """A mapping that cannot be used. `mistakes` maps each field (with dots) to what is wrong with it."""

    def __init__(self, where: str, mistakes: Mapping[str, str]) -> None:
        self.mistakes = dict(mistakes)
        lines = "".join(f"\n  {field}: {mistake}" for field, mistake in self.mistakes.items())
        super().__init__(f"mapping {where}: {len(self.mistakes)} mistake(s){lines}")


class UnreadableSource(SourceError):
    """Nothing can be read from the source at all."""


class WrongColumns(SourceError):
    """The source lacks columns that the mapping names."""

    def __init__(self, where: str, missing: Sequence[str], found: Sequence[str]) -> None:
        self.missing, self.found = tuple(missing), tuple(found)
        shown = [name[:60] for name in self.found[:40]]
        super().__init__(f"{where}: expected the columns {list(self.missing)}, which are missing; found {shown}")


class SourceCutShort(SourceError):
    """The source breaks off. Rows 0 to `row` - 1 were delivered; ingesting the repaired file again repeats nothing."""

    def __init__(self, where: str, row: int, detail: str) -> None:
        self.row = row
        super().__init__(
            f"{where}: broken after {row} rows ({detail}); the rows before were delivered, "
            "the repaired file can be ingested again and repeats none of them"
        )
