"""What is printed: results to standard output, everything else to standard error, outside text always made harmless."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.logs import escape_control

console = Console(highlight=False, soft_wrap=True)
"""Results."""
errors = Console(stderr=True, highlight=False, soft_wrap=True)
"""What goes on beside the result: progress, hints, errors."""


def safe(value: object) -> str:
    """Text from outside as it may be printed: control characters written out, no markup of its own."""
    return escape(escape_control("" if value is None else str(value)))


def say(text: str) -> None:
    """A line of ours to standard error; may hold markup."""
    errors.print(text)


def result(text: str) -> None:
    """A line of ours to standard output; may hold markup."""
    console.print(text)


def print_json(value: Any) -> None:
    """One JSON document on standard output, nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=True) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Rows as a table; cells are made harmless, `right` names the columns aligned to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*[safe(cell) for cell in row])
    # A pipe has no width: rows must not be folded there.
    Console(highlight=False, width=None if sys.stdout.isatty() else 400).print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values, a line each."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        console.print(f"[bold]{escape(name.ljust(width))}[/]  {safe(value)}")


def fail(error: BaseException | str) -> None:
    """One sentence in red."""
    errors.print(f"[red]{safe(error)}[/]")


def count(n: float) -> str:
    """A number of things, with thousands separated."""
    return f"{n:,.0f}"
