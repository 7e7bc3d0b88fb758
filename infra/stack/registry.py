"""The schema registry: Apicurio, whose Confluent interface every client of ours speaks; schemas in a local H2 file."""

from __future__ import annotations

from infra.stack.errors import StackError
from infra.stack.http import client
from infra.stack.java import jars, java
from infra.stack.part import Part
from infra.stack.state import LOOPBACK, StackState

COMPATIBILITY = "FULL_TRANSITIVE"
HEAP = "256m"


def registry_url(state: StackState) -> str:
    """Return the address of the Confluent-compatible interface."""
    return f"http://{LOOPBACK}:{state.port('registry', 'http')}/apis/ccompat/v7"


def registry_part(state: StackState) -> Part:
    """Describe the registry."""
    folder = state.part_folder("registry")
    ports = state.ports("registry")
    home = jars("registry")
    # WRITE_DELAY=0: without it a kill loses schemas that were acknowledged. DB_CLOSE_ON_EXIT: Quarkus closes it itself.
    database = f"jdbc:h2:file:{folder / 'data' / 'registry'};DB_CLOSE_ON_EXIT=FALSE;WRITE_DELAY=0"
    env = {
        # Both hosts: the second serves health and metrics, and each listens on every interface unless told.
        "QUARKUS_HTTP_HOST": LOOPBACK,
        "QUARKUS_HTTP_PORT": str(ports["http"]),
        "QUARKUS_MANAGEMENT_HOST": LOOPBACK,
        "QUARKUS_MANAGEMENT_PORT": str(ports["management"]),
        "APICURIO_STORAGE_KIND": "sql",
        "APICURIO_STORAGE_SQL_KIND": "h2",
        "APICURIO_DATASOURCE_URL": database,
        "QUARKUS_LOG_CONSOLE_JSON_ENABLED": "false",
    }
    options = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:MaxMetaspaceSize=192m"]
    return Part(
        name="registry",
        argv=java(heap=HEAP, options=options, main=["-jar", str(home / "quarkus-run.jar")]),
        env=env,
        folder=folder,
        prepare=lambda: (folder / "data").mkdir(parents=True, exist_ok=True),
        ports=tuple(ports.values()),
        probe=lambda: _probe(registry_url(state)),
        on_ready=lambda: _demand_compatibility(registry_url(state)),
    )


def _probe(url: str) -> None:
    client().get(f"{url}/subjects").raise_for_status()


def _demand_compatibility(url: str) -> None:
    """Set the global compatibility, which defaults to NONE, and read it back."""
    client().put(f"{url}/config", json={"compatibility": COMPATIBILITY}).raise_for_status()
    found = client().get(f"{url}/config").raise_for_status().json().get("compatibilityLevel")
    if found != COMPATIBILITY:
        raise StackError(f"the registry's global compatibility is {found}, not {COMPATIBILITY}")
