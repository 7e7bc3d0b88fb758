"""Stops every stack below a state folder: `python -m infra.stack down|clean <folder>`. What `make down` runs."""

from __future__ import annotations

import sys
from pathlib import Path

from infra.stack.errors import StackError
from infra.stack.stack import clean_all, down_all
from infra.stack.state import PartStatus


def main(arguments: list[str]) -> int:
    """Stop, and for `clean` remove; return the exit status: 0, or 1 where something does not stop."""
    action, folder = arguments[0], Path(arguments[1]).absolute()
    try:
        stopped = down_all(folder, progress=_tell)
        sys.stdout.write(f"Stopped: {', '.join(stopped)}.\n" if stopped else "Nothing runs.\n")
        if action == "clean" and clean_all(folder):
            sys.stdout.write(f"Removed {folder}.\n")
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _tell(name: str, status: PartStatus) -> None:
    if status.state in ("stopping", "stopped"):
        sys.stdout.write(f"  {name}: {status.state}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
