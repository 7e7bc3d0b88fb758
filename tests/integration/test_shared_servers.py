"""A module finds the shared servers as after a first start, whatever the one before has left on them."""

from __future__ import annotations

import sys

import psycopg

from infra.status import READERS
from schema_registry.contracts import COMMANDS, PARTITIONS
from tests.integration.infra.own_log import own_log
from tests.shared_servers import SharedServers

PARTS = ("kafka", "registry", "s3", "postgres")
STORES = ("archive", "warehouse")
COUNT = 100


def test_nothing_of_the_module_before_is_left(shared_servers: SharedServers) -> None:
    with own_log(shared_servers, PARTS) as log:
        log.simulate(COUNT, seed=3)
        for name in STORES:
            log.drive(name)
        log.stack.start_worker("warehouse", [sys.executable, "-m", "infra.cli", "run", "warehouse"])
        log.stack.wait_ready(["warehouse"])
        assert all(READERS[name](log.fresh(), 1)[1] for name in STORES)
        assert (log.stack.state.folder / "command-handler").is_dir()
    assert "warehouse" not in shared_servers.stack.status(), "workers end with the module"

    with own_log(shared_servers, PARTS) as log:
        assert set(log.ends(list(PARTITIONS)).values()) == {0}
        composition = log.fresh()
        assert composition.clients.admin.committed("tidemark-command-handler", [COMMANDS]) == {}
        assert composition.clients.s3.list_objects_v2(Bucket=composition.settings.s3.bucket)["KeyCount"] == 0
        with psycopg.connect(composition.warehouse_dsn) as connection:
            assert connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'warehouse%'").fetchall() == []
        assert not (log.stack.state.folder / "command-handler").exists()
        log.simulate(COUNT, seed=3)  # known to the log before, unknown to this one
        for name in STORES:
            log.drive(name)
        assert log.verify(log.fresh().warehouse()).is_ok
