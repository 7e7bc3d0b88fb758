"""A worker's start is mostly imports: what it never uses is not among them."""

from __future__ import annotations

import subprocess
import sys

import pytest

UNUSED = ("pandas", "torch", "sklearn", "lightgbm", "great_expectations", "altair", "networkx", "moto")
STORE_MODULES = ("projections.warehouse", "projections.wallet_graph", "projections.curated", "adbc_driver_postgresql.dbapi", "neo4j")


@pytest.mark.parametrize("leaves_out", [True, False])
def test_a_store_worker_imports_no_library_that_it_does_not_use(leaves_out: bool) -> None:
    code = f"""
import sys
import infra.cli.commands
from infra.composition import WORKERS
from infra.worker import leave_out_unused
if {leaves_out}:
    leave_out_unused()
for name in {STORE_MODULES!r}:
    __import__(name)
print(*(name for name in {UNUSED!r} if sys.modules.get(name) is not None))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Without it others bring pandas in: once they no longer do, it can go.
    assert done.stdout.split() == ([] if leaves_out else ["pandas"])
