"""The local stack for Python: start it, ask it, stop it. The work is the supervisor's; this says what is wanted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import psutil
from pydantic import SecretStr

from infra.settings import (
    AwsSettings,
    EndpointSettings,
    KafkaSettings,
    Neo4jSettings,
    RegistrySettings,
    S3Settings,
    Settings,
    WarehouseSettings,
    load_settings,
    worker_environment,
)
from infra.stack import aws, catalogue, guides, kafka, neo4j, postgres, process, registry, s3
from infra.stack.errors import PartDown, StackError
from infra.stack.part import SERVERS
from infra.stack.state import PartStatus, StackState, WorkerSpec

Progress = Callable[[str, PartStatus], None]
# 20 s on two idle cores; 84 s was seen on the same two under a load of 12.
READY_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 120.0
# A part that ended this often without ever being ready will not come up by itself.
_HOPELESS_RESTARTS = 4
_POLL_S = 0.1


@dataclass(frozen=True)
class Addresses:
    """Where the local servers listen. Passwords are in `Stack.settings()`."""

    kafka: str
    registry: str
    s3: str
    postgres_dsn: SecretStr
    neo4j_bolt: str
    neo4j_http: str
    neo4j_browser: str
    guides: str
    aws: str


class Stack:
    """One local stack, by its state folder.

    Raises:
        SettingsError: no settings were given and those of the environment are wrong.
    """

    def __init__(self, state_folder: Path, settings: Settings | None = None) -> None:
        self.state = StackState(state_folder)
        self._settings = settings if settings is not None else load_settings()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the stack that the settings name."""
        return cls(settings.stack_dir, settings)

    def local_parts(self) -> tuple[str, ...]:
        """Name the servers that are ours to start: those whose address the settings do not give."""
        own = {
            "kafka": self._settings.kafka.bootstrap,
            "registry": self._settings.registry.url,
            "s3": self._settings.s3.endpoint_url,
            "postgres": self._settings.warehouse.dsn,
            "neo4j": self._settings.neo4j.uri,
            "aws": self._settings.aws.endpoint_url,
        }
        return tuple(name for name in SERVERS if own.get(name) is None)

    def up(
        self,
        parts: Iterable[str] | None = None,
        *,
        progress: Progress | None = None,
        timeout_s: float = READY_TIMEOUT_S,
        is_tethered: bool = False,
        is_kafka_secure: bool = False,
    ) -> Addresses:
        """Start what is not running, wait until each part answers by its protocol, return the addresses.

        A second call adds parts and changes nothing else.

        Args:
            parts: names from SERVERS; by default every one that the settings do not give.
            progress: called with a part's name and status whenever its state changes.
            timeout_s: how long to wait, in seconds.
            is_tethered: the stack stops by itself when this process ends, however it ends.
            is_kafka_secure: Kafka listens with TLS and SASL too.

        Raises:
            StackError: a part has no such name, or `make setup` was not run.
            PartDown: a part did not become ready; the message says what to do.
        """
        names = tuple(parts) if parts is not None else self.local_parts()
        self.state.create()
        with self.state.change_desired() as box:
            secure = is_kafka_secure or (box[0].is_kafka_secure and "kafka" in box[0].parts)
            # In the order of SERVERS, so that the same wish is the same file.
            wanted = {*box[0].parts, *names}
            unknown = wanted - set(SERVERS)
            if unknown:
                raise StackError(f"no part is named {', '.join(sorted(unknown))}; there are {', '.join(SERVERS)}")
            owner = (os.getpid(), psutil.Process().create_time()) if is_tethered else box[0].owner
            ordered = tuple(name for name in SERVERS if name in wanted)
            desired = replace(box[0], parts=ordered, owner=owner, is_kafka_secure=secure)
            for name in names:
                catalogue.server(self.state, name, desired)  # an error here reaches the caller
            box[0] = desired
        self._supervise()
        self.wait_ready(names, timeout_s=timeout_s, progress=progress)
        if is_kafka_secure:
            kafka.create_scram_user(self.state)
        return self.addresses()

    def down(self, *, timeout_s: float = STOP_TIMEOUT_S, progress: Progress | None = None) -> bool:
        """Stop everything cleanly, workers first; tell whether anything ran.

        Raises:
            StackError: something still runs after the timeout.
        """
        if not self.state.folder.is_dir():
            return False
        with self.state.change_desired() as box:
            had_leftovers = bool(self._held())
            box[0] = replace(box[0], parts=(), workers={}, owner=None, is_kafka_secure=False)
        if not self.state.is_supervised():
            # Its supervisor was killed: what it left behind is ours to stop.
            for folder in self._held():
                process.stop_holders(folder)
            return had_leftovers
        self._wait(lambda: not self.state.is_supervised(), timeout_s, progress, "the stack does not stop")
        return True

    def status(self) -> dict[str, PartStatus]:
        """Return what each part is doing; empty where nothing runs."""
        return self.state.status()

    def is_up(self) -> bool:
        """Tell whether a supervisor runs."""
        return self.state.is_supervised()

    def wait_ready(self, names: Iterable[str], *, timeout_s: float = READY_TIMEOUT_S, progress: Progress | None = None) -> None:
        """Wait until each named part answers by its protocol; a worker: until it runs, or has done its work.

        Raises:
            PartDown: one does not; the message names it, the reason and its log.
            StackError: the supervisor has ended.
        """
        deadline = time.monotonic() + timeout_s
        missing = list(names)
        first_restarts: dict[str, int] = {}
        told: dict[str, tuple[str, str | None]] = {}
        while missing:
            statuses = self.status()
            if not self.state.is_supervised():
                raise StackError(f"the supervisor has ended while starting; see {self.state.log('supervisor')}")
            for name in list(missing):
                status = statuses.get(name, PartStatus())
                if progress is not None and told.get(name) != (status.state, status.detail):
                    told[name] = (status.state, status.detail)
                    progress(name, status)
                if status.is_ready or status.state == "finished":
                    missing.remove(name)
                    continue
                began_at = first_restarts.setdefault(name, status.restarts)
                if status.restarts - began_at >= _HOPELESS_RESTARTS or time.monotonic() > deadline:
                    raise PartDown(name, self.explain(name, status))
            time.sleep(_POLL_S)

    def explain(self, name: str, status: PartStatus | None = None) -> str:
        """Say in one sentence why a part is not ready and what to do."""
        found = status if status is not None else self.status().get(name)
        if found is None:
            return f"{name} is not running: start it with `tidemark up`"
        if found.is_ready:
            return f"{name} is ready"
        why = found.detail or (f"it ended with {found.last_exit}" if found.last_exit else "it does not answer yet")
        return f"{name} is not ready ({found.state}, {found.restarts} restarts): {why}; see {self.state.log(name)}"

    def require(self, *names: str) -> None:
        """Demand that parts are ready now.

        Raises:
            PartDown: one is not.
        """
        statuses = self.status()
        for name in names:
            if name not in statuses or not statuses[name].is_ready:
                raise PartDown(name, self.explain(name, statuses.get(name)))

    def addresses(self) -> Addresses:
        """Return where the local servers listen."""
        return Addresses(
            kafka=kafka.bootstrap(self.state),
            registry=registry.registry_url(self.state),
            s3=s3.s3_url(self.state),
            postgres_dsn=SecretStr(postgres.postgres_dsn(self.state)),
            neo4j_bolt=neo4j.bolt_uri(self.state),
            neo4j_http=neo4j.http_url(self.state),
            neo4j_browser=neo4j.browser_url(self.state),
            guides=guides.guides_url(self.state),
            aws=aws.aws_url(self.state),
        )

    def settings(self) -> Settings:
        """Return the settings with the address and credentials of each local server filled in."""
        local = self.local_parts()
        state = self.state
        given = self._settings
        filled: dict[str, object] = {"state_dir": state.folder.parent, "stack": state.folder.name}
        if "kafka" in local:
            filled["kafka"] = KafkaSettings(bootstrap=kafka.bootstrap(state))
        if "registry" in local:
            filled["registry"] = RegistrySettings(url=registry.registry_url(state))
        if "s3" in local:
            filled["s3"] = S3Settings(
                endpoint_url=s3.s3_url(state),
                access_key=state.secret("s3_access_key"),
                secret_key=SecretStr(state.secret("s3_secret_key")),
                bucket=given.s3.bucket,
                region=s3.REGION,
            )
        if "postgres" in local:
            filled["warehouse"] = WarehouseSettings(dsn=SecretStr(postgres.postgres_dsn(state)))
        if "neo4j" in local:
            filled["neo4j"] = Neo4jSettings(
                uri=neo4j.bolt_uri(state),
                user=neo4j.USER,
                password=SecretStr(state.secret("neo4j")),
                database=neo4j.DATABASE,
                browser_url=neo4j.browser_url(state),
                guides_url=guides.guides_url(state),
            )
        if "aws" in local:
            filled["aws"] = AwsSettings(
                endpoint_url=aws.aws_url(state),
                access_key=aws.ACCESS_KEY,
                secret_key=SecretStr(aws.SECRET_KEY),
                region=aws.REGION,
            )
        if given.endpoint.url is None and ("aws" in local or not given.aws.is_itself):
            url = f"http://127.0.0.1:{state.port('endpoint', 'http')}"
            filled["endpoint"] = EndpointSettings(url=url, name=given.endpoint.name)
        return given.model_copy(update=filled)

    def secure_kafka(self) -> KafkaSettings:
        """Return how to reach Kafka's TLS and SASL listener."""
        return KafkaSettings(
            bootstrap=kafka.secure_bootstrap(self.state),
            security_protocol="SASL_SSL",
            sasl_mechanism="SCRAM-SHA-256",
            sasl_username=kafka.SCRAM_USER,
            sasl_password=SecretStr(self.state.secret("kafka")),
            ca_location=kafka.ca_file(self.state),
        )

    def start_worker(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        depends_on: Sequence[str] = (),
        restarts_after_success: bool = True,
    ) -> None:
        """Keep a process of ours running beside the servers; the same call again changes nothing.

        It finds this stack by TIDEMARK_STATE_DIR and TIDEMARK_STACK, which it is given.

        Raises:
            StackError: the name is a server's.
        """
        if name in SERVERS:
            raise StackError(f"{name} is a server's name; give the worker another")
        here = {"TIDEMARK_STATE_DIR": str(self.state.folder.parent), "TIDEMARK_STACK": self.state.folder.name}
        spec = WorkerSpec(tuple(argv), {**here, **(env or {})}, tuple(depends_on), restarts_after_success)
        self.state.create()
        with self.state.change_desired() as box:
            box[0] = replace(box[0], workers={**box[0].workers, name: spec})
        self._supervise()

    def stop_worker(self, name: str, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop a worker cleanly; nothing happens where none of this name runs.

        Raises:
            StackError: it still runs after the timeout.
        """
        with self.state.change_desired() as box:
            box[0] = replace(box[0], workers={n: w for n, w in box[0].workers.items() if n != name})
        self._wait(lambda: name not in self.status(), timeout_s, None, f"{name} does not stop")

    def stop_parts(self, names: Iterable[str], *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop some servers cleanly and leave the rest.

        Raises:
            StackError: one still runs after the timeout.
        """
        gone = set(names)
        with self.state.change_desired() as box:
            box[0] = replace(box[0], parts=tuple(part for part in box[0].parts if part not in gone))
        self._wait(lambda: not gone & set(self.status()), timeout_s, None, f"{', '.join(sorted(gone))} does not stop")

    def kill(self, name: str) -> int:
        """End a part at once, as a power cut would; the supervisor starts it again. Return the pid that was.

        Raises:
            PartDown: it does not run.
        """
        status = self.status().get(name)
        if status is None or status.pid is None:
            raise PartDown(name, self.explain(name, status))
        with suppress(ProcessLookupError):
            os.killpg(status.pid, signal.SIGKILL)
        return status.pid

    def memory(self) -> dict[str, int]:
        """Return each part's memory in bytes (proportional set size), children included, and the supervisor's."""
        found = {name: _pss(status.pid) for name, status in self.status().items() if status.pid is not None}
        pid = self.state.supervisor_pid()
        return found | ({"supervisor": _pss_of(pid)} if pid is not None else {})

    def _supervise(self) -> None:
        """Start a supervisor unless one runs; it must be seen holding its lock."""
        deadline = time.monotonic() + 20.0
        while not self.state.is_supervised():
            command = [sys.executable, "-m", "infra.stack.supervisor", str(self.state.folder)]
            with self.state.log("supervisor").open("ab") as log:
                child = subprocess.Popen(
                    command,
                    env=worker_environment(),
                    cwd=self.state.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            while child.poll() is None and not self.state.is_supervised() and time.monotonic() < deadline:
                time.sleep(_POLL_S / 4)
            if time.monotonic() > deadline:
                raise StackError(f"the supervisor does not start; see {self.state.log('supervisor')}")

    def _held(self) -> list[Path]:
        """Return the folders of parts that still run, workers first."""
        workers = self.state.folder / catalogue.WORKER_FOLDER
        folders = [*sorted(workers.glob("*")), *sorted(self.state.folder.glob("*"), reverse=True)]
        return [folder for folder in folders if process.is_held(folder)]

    def _wait(self, is_done: Callable[[], bool], timeout_s: float, progress: Progress | None, complaint: str) -> None:
        deadline = time.monotonic() + timeout_s
        told: dict[str, str] = {}
        while not is_done():
            if progress is not None:
                for name, status in self.state.status().items():
                    if told.get(name) != status.state:
                        told[name] = status.state
                        progress(name, status)
            if time.monotonic() > deadline:
                raise StackError(f"{complaint} within {timeout_s:.0f} s; see {self.state.log('supervisor')}")
            time.sleep(_POLL_S)


def stacks(state_dir: Path) -> list[Path]:
    """Return the folder of every stack below a state folder."""
    if not state_dir.is_dir():
        return []
    return sorted(path for path in state_dir.iterdir() if (path / "desired.json").exists())


def down_all(state_dir: Path, *, progress: Progress | None = None) -> list[str]:
    """Stop every stack below a state folder; return the names of those that ran.

    Raises:
        StackError: one does not stop.
    """
    return [folder.name for folder in stacks(state_dir) if Stack(folder, _blank()).down(progress=progress)]


def clean_all(state_dir: Path, *, progress: Progress | None = None) -> bool:
    """Stop every stack, then remove the state folder; tell whether there was one.

    Raises:
        StackError: a stack does not stop; nothing is removed then.
    """
    down_all(state_dir, progress=progress)
    if not state_dir.is_dir():
        return False
    shutil.rmtree(state_dir)
    return True


def _blank() -> Settings:
    # Stopping needs no address, so it works where the settings are wrong.
    return Settings.model_construct()


def _pss(pid: int) -> int:
    try:
        process_tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(_pss_of(member.pid) for member in process_tree)


def _pss_of(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_full_info().pss)
    except psutil.Error:
        return 0
