"""The version of what lies in a stack's folder: older state is brought forward step by step, newer state is left alone.

A whole number of its own, not the package's version: it rises only when a file below the folder changes its meaning (wanted parts, ports,
secrets, the handler's index, the notifier's ledger, rebuild notes). It stands in `version.json`; a folder without one is of version 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from infra.stack.errors import StackBusy, StackError

STATE_VERSION = 1
FILE = "version.json"


class StateTooNew(StackError):
    """A newer Tidemark has written this state. Nothing of it was touched."""


@dataclass(frozen=True, slots=True)
class Step:
    """Brings a folder from one version to the next. It may be killed and is then run again, so it must stand being repeated."""

    name: str
    run: Callable[[Path], None]


STEPS: Mapping[int, Step] = {}
"""By the version that a step starts from. There is none yet: version 1 is the first."""


def check(folder: Path) -> int:
    """The version of a folder's state; changes nothing. A folder that is not there yet has this code's.

    Raises:
        StateTooNew: it is newer than this code.
        StackError: its file is damaged.
    """
    found = _read(folder)
    if found > STATE_VERSION:
        raise StateTooNew(
            f"{folder} holds state of version {found}{_writer(folder)}, and this Tidemark ({_ours()}) knows versions up to"
            f" {STATE_VERSION}; nothing was touched. Go on with the Tidemark that wrote it, or name another stack (`tidemark --stack NAME`)"
        )
    return found


def bring_forward(folder: Path, is_supervised: bool, write: Callable[[str, object], None]) -> list[str]:
    """Bring a folder's state to this code's version and note that.

    Args:
        is_supervised: whether servers run on it.
        write: replaces a JSON file of the folder in one step.

    Returns:
        The names of the steps that were taken.

    Raises:
        StateTooNew: it is newer than this code; nothing was touched.
        StackBusy: it is older and in use.
    """
    found = check(folder)
    taken: list[str] = []
    if found < STATE_VERSION and is_supervised:
        raise StackBusy(
            f"{folder} is in use by an older Tidemark (state version {found}): stop it with `tidemark down`, then start it again"
        )
    while found < STATE_VERSION:
        step = STEPS[found]
        step.run(folder)
        taken.append(step.name)
        found += 1
        write(FILE, _content(found))
    if not (folder / FILE).exists():
        write(FILE, _content(found))
    return taken


def _read(folder: Path) -> int:
    content = _content_of(folder)
    if content is None:
        return 1 if _holds_state(folder) else STATE_VERSION
    found = content.get("state_version")
    if not isinstance(found, int) or found < 1:
        raise StackError(f"{folder / FILE} is damaged: expected a state_version, found {str(content)[:80]}")
    return found


def _holds_state(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return any(path.name != "logs" and not path.name.startswith(".") for path in folder.iterdir())


def _content_of(folder: Path) -> dict[str, object] | None:
    try:
        content = json.loads((folder / FILE).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise StackError(f"{folder / FILE} is damaged: {error}") from None
    return content if isinstance(content, dict) else {}


def _content(number: int) -> dict[str, object]:
    return {"state_version": number, "written_by": _ours()}


def _writer(folder: Path) -> str:
    by = (_content_of(folder) or {}).get("written_by")
    return f", written by {str(by)[:40]}" if by else ""


def _ours() -> str:
    try:
        return f"tidemark {version('tidemark')}"
    except PackageNotFoundError:
        return "tidemark"
