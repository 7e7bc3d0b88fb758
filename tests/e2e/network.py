"""A network between workers and servers that can fail: a proxy before each server, and settings that lead through them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from infra.settings import SECRETS_FILE_VARIABLE, Settings
from infra.stack import Stack
from infra.stack.kafka import OWN_PROPERTIES
from infra.stack.state import LOOPBACK, write_private
from tests.fault_proxy import Fault, FaultProxy

SERVERS: Final[Mapping[str, tuple[str, str]]] = {
    "kafka": ("kafka", "secure"), "registry": ("registry", "http"), "s3": ("s3", "http"),
    "postgres": ("postgres", "sql"), "neo4j": ("neo4j", "bolt"),
}  # fmt: skip
"""Server → the port that its proxy leads to. Kafka's is a listener of its own, on the port that TLS does not use here."""
LASTS_S: Final = (0.5, 3.0)
HIT_S: Final = 150.0  # how long a fault waits for a connection that it can hit
WORK_EVERY_S: Final = 5.0  # how often new work is asked for until then
_LISTENERS: Final = """
listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller},PROXIED://{host}:{secure}
advertised.listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller},PROXIED://{host}:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
"""


class Network:
    """The proxies of one stack, by server."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        stack.state.create()
        self.proxies = {name: FaultProxy(stack.state.port(*port)) for name, port in SERVERS.items()}
        ports = stack.state.ports("kafka")
        folder = stack.state.part_folder("kafka")
        folder.mkdir(parents=True, exist_ok=True)
        # A client goes where the broker says that it is: the broker must say that it is behind the proxy.
        (folder / OWN_PROPERTIES).write_text(_LISTENERS.format(host=LOOPBACK, proxy=self.proxies["kafka"].port, **ports), "utf-8")

    def close(self) -> None:
        """Stop every proxy."""
        for proxy in self.proxies.values():
            proxy.close()

    def settings(self) -> Settings:
        """The stack's settings, every server of `SERVERS` reached through its proxy."""
        found = self._stack.settings()
        dsn = found.warehouse.dsn.get_secret_value() if found.warehouse.dsn is not None else ""
        return found.model_copy(
            update={
                "kafka": found.kafka.model_copy(update={"bootstrap": f"{LOOPBACK}:{self.proxies['kafka'].port}"}),
                "registry": found.registry.model_copy(update={"url": self._through("registry", found.registry.url or "")}),
                "s3": found.s3.model_copy(update={"endpoint_url": self._through("s3", found.s3.endpoint_url or "")}),
                "warehouse": found.warehouse.model_copy(update={"dsn": SecretStr(self._through("postgres", dsn))}),
                "neo4j": found.neo4j.model_copy(update={"uri": self._through("neo4j", found.neo4j.uri or "")}),
            }
        )

    def environment(self) -> dict[str, str]:
        """What a worker process needs to go through the proxies: a private file of settings, named."""
        settings = self.settings()
        groups = {name: _plain(getattr(settings, name).model_dump()) for name in ("kafka", "registry", "s3", "warehouse", "neo4j")}
        file: Path = self._stack.state.folder / "proxied.json"
        write_private(file, json.dumps(groups))
        return {SECRETS_FILE_VARIABLE: str(file)}

    def strike(self, server: str, fault: Fault, rng: random.Random, work: Callable[[], None]) -> bool:
        """Let a fault take place for a while; tells whether it hit a connection.

        `work` gives somebody a reason to speak to the server. It is asked for again while nothing was hit: who was at the head, or waited
        to be started again, when the first of it came has had no need of the server.
        """
        proxy, before = self.proxies[server], self.proxies[server].struck
        if fault == "refuse":
            proxy.strike("reset")  # so that somebody has to come again, and is refused
        lasts_s, delay_s, after_bytes = rng.uniform(*LASTS_S), rng.uniform(0.02, 0.2), rng.randint(0, 2_000)
        proxy.strike(fault, delay_s=delay_s, after_bytes=after_bytes)
        began, next_work = time.monotonic(), 0.0
        while time.monotonic() < began + lasts_s or (proxy.struck == before and time.monotonic() < began + HIT_S):
            if proxy.struck == before and time.monotonic() >= next_work:
                work()
                next_work = time.monotonic() + WORK_EVERY_S
            time.sleep(0.05)
            if fault == "reset" and proxy.struck == before:
                proxy.strike("reset")
        proxy.heal()
        return proxy.struck > before

    def _through(self, server: str, address: str) -> str:
        return address.replace(f":{self._stack.state.port(*SERVERS[server])}", f":{self.proxies[server].port}")


@contextmanager
def closing(networks: list[Network]) -> Iterator[None]:
    """Close what was opened by then."""
    try:
        yield
    finally:
        for network in networks:
            network.close()


def _plain(group: dict[str, Any]) -> dict[str, Any]:
    found = {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in group.items()}
    return {name: value for name, value in found.items() if value is not None}


__all__ = ["SERVERS", "Network", "closing"]
