"""`python -m infra.cli`, as the local stack starts its workers."""

from __future__ import annotations

from infra.cli import main

if __name__ == "__main__":
    main()
