"""What is printed: results to standard output, everything else to standard error, outside text always made harmless."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from infra.logs import escape_control

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_AFTER_SEPARATOR = re.compile(r"([;\t]\s*)([=+\-@])")

console = Console(highlight=False, soft_wrap=True)
"""Results."""
errors = Console(stderr=True, highlight=False, soft_wrap=True)
"""What goes on beside the result: progress, hints, errors."""


def plain(value: object) -> str:
    """Text from outside with its control characters written out: what goes where no markup is read."""
    return escape_control("" if value is None else str(value))


def safe(value: object) -> str:
    """Text from outside as it may stand inside markup: harmless, and no markup of its own."""
    return escape(plain(value))


def say(text: str) -> None:
    """A line of ours to standard error; may hold markup."""
    errors.print(text)


def result(text: str) -> None:
    """A line of ours to standard output; may hold markup."""
    console.print(text)


def print_json(value: Any) -> None:
    """One JSON document on standard output, nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=True) + "\n")


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    colours: Mapping[str, str] | None = None,
) -> Table:
    """Rows as a table; cells are made harmless.

    Args:
        right: the columns aligned to the right.
        colours: by the text of a cell, its colour.
    """
    found = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for column in columns:
        found.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        found.add_row(*[Text(plain(cell), style=(colours or {}).get(str(cell), "")) for cell in row])
    return found


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    colours: Mapping[str, str] | None = None,
) -> None:
    """Print rows as a table; see `table`."""
    print_whole(table(title, columns, rows, right=right, colours=colours))


def print_whole(what: RenderableType) -> None:
    """Print something with tables in it. A pipe has no width: rows must not be folded there."""
    Console(highlight=False, width=None if sys.stdout.isatty() else 400).print(what)


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows as CSV on standard output, nothing else; a text that a spreadsheet would take for a formula gets an apostrophe."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(cell) for cell in row] for row in rows)


def _cell(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    # Behind a separator of other countries' spreadsheets a formula may begin too.
    found = _AFTER_SEPARATOR.sub(r"\1'\2", plain(cell))
    return f"'{found}" if cell.startswith(_FORMULA) else found


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values, a line each."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        console.print(Text.assemble((plain(name).ljust(width), "bold"), "  ", plain(value)))


def fail(error: BaseException | str) -> None:
    """One sentence in red."""
    errors.print(Text(plain(error), style="red"))


def count(n: float) -> str:
    """A number of things, with thousands separated."""
    return f"{n:,.0f}"


def size(n_bytes: float) -> str:
    """Bytes for people: 512 B, 3.4 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024 or unit == "GiB":
            return f"{n_bytes:,.0f} B" if unit == "B" else f"{n_bytes:,.1f} {unit}"
        n_bytes /= 1024
    raise AssertionError("the last unit takes everything")


def duration(seconds: float) -> str:
    """A time span for people: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plain_lines(text: str) -> str:
    """Several lines of outside text with the control characters of each written out."""
    return "\n".join(plain(line) for line in text.split("\n"))
