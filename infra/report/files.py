"""A report's files in one folder: report.json, report.html, plots/*.png. Each is put in place whole; the JSON last."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from infra.report.html import render
from infra.report.model import Report, ReportUnreadable, from_json, to_json

JSON, HTML, PLOTS = "report.json", "report.html", "plots"


def save(report: Report, folder: Path) -> Path:
    """Write the report's files, over older ones; returns the path of the page.

    Each file is replaced atomically, the JSON last: whoever finds it finds the page and figures that belong to it.
    Figures of an older report that this one has not are removed.

    Raises:
        OSError: the folder cannot be written.
    """
    from infra.report.plots import draw  # its library takes a second to import: only who draws pays

    plots = folder / PLOTS
    plots.mkdir(parents=True, exist_ok=True)
    figures = draw(report)
    for name, png in figures.items():
        put(plots / f"{name}.png", png)
    for old in plots.glob("*.png"):
        if old.stem not in figures:
            old.unlink()
    put(folder / HTML, render(report, figures).encode())
    put(folder / JSON, to_json(report).encode())
    return folder / HTML


def load(folder: Path) -> Report:
    """Read a saved report.

    Raises:
        ReportUnreadable: there is none, or it is broken or of another format.
    """
    file = folder / JSON
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportUnreadable(f"expected a report in {file}: {error}") from error
    return from_json(text)


def put(file: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        fresh.chmod(0o644)  # mkstemp's files are for the owner alone; a report is to be passed on
        fresh.replace(file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
