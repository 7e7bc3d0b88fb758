"""The command line. `tidemark` starts here; each command parses, wires and calls: the work lives elsewhere."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit status."""
    from infra.cli.app import run

    sys.exit(run(sys.argv[1:]))
