"""The worked example of the docs as a user has it: its module by path, and installed beside Tidemark as pip would do it."""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from infra import read_models

FOLDER = Path(__file__).parents[1] / "docs" / "examples" / "net-flow"
GROUP = read_models.ENTRY_POINTS


def install(folder: Path, points: dict[str, str] | None = None) -> Path:
    """Put the example's module and the metadata that its pyproject.toml gives into a folder for `sys.path`.

    Args:
        points: entry points in place of the example's own.
    """
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text("utf-8"))["project"]
    if points is None:
        points = project["entry-points"][GROUP]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(FOLDER / "net_flow.py", folder)
    info = folder / f"net_flow-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()))
    return folder


@contextmanager
def installed(folder: Path, points: dict[str, str] | None = None) -> Iterator[Any]:
    """The example installed for this process; yields its module."""
    sys.path.insert(0, str(install(folder, points)))
    read_models.added.cache_clear()
    try:
        yield import_module("net_flow")
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("net_flow", None)
        read_models.added.cache_clear()
