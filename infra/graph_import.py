"""The bulk road of a graph's rebuild: history into files, files into a store, and the files away again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.stack import StackError
from infra.stack.neo4j_import import import_sheets
from infra.stack.state import StackState
from projections.wallet_graph_import import GraphHistory, write_sheets

Told = Callable[[str, int, int], None]
"""Told the stage (`sheets`, `import`), how much is done, and how much there is."""


@contextmanager
def imported_graph(state: StackState, folder: Path, log: Path, told: Told) -> Iterator[GraphHistory]:
    """Take history in the block, then make generation 1 of this state folder from it. A history without records leaves no store.

    Args:
        folder: for files, about as large as the log and the store together; removed at the end.
        log: where the import tool's output goes.

    Raises:
        StackError: the disk is full, or the tool failed.
        StoreUnavailable: the disk is full already while history is taken.
        StoreDisagrees: the log holds a transaction twice.
    """
    try:
        history = GraphHistory(folder / "events")
        yield history
        sheets = folder / "sheets"
        sheets.mkdir()
        told("sheets", 0, 1)
        try:
            written = write_sheets(history, sheets, lambda done, total: told("sheets", done, total))
        except OSError as error:
            raise StackError(f"the sheets of the import cannot be kept in {sheets}: {error}. Make room there, run it again") from error
        shutil.rmtree(folder / "events")  # the store needs the room
        if written:
            told("import", 0, 1)
            import_sheets(state, written, log)
            told("import", 1, 1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
