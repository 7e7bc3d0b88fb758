"""The state folder of one stack: its paths, ports, generated secrets, what is wanted and what is.

Every file is replaced in one step, so a reader sees the old or the new one; the folder is readable by its owner alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import structlog

from infra.stack import state_version
from infra.stack.errors import StackError

_log = structlog.get_logger(__name__)
LOOPBACK = "127.0.0.1"
# Below Linux's ephemeral range (32768), so that no outgoing connection takes a remembered port while the stack is down.
PORT_RANGE = (20000, 32000)
# Every port that a part listens on, by part.
PORT_NAMES: dict[str, tuple[str, ...]] = {
    "kafka": ("broker", "controller", "secure"),
    "registry": ("http", "management"),
    "s3": ("http",),
    "postgres": ("sql",),
    "neo4j": ("bolt", "http"),
    "guides": ("http",),
    "aws": ("http",),
    "endpoint": ("http",),
}
_SECRET_NAMES = ("kafka", "s3_access_key", "s3_secret_key", "postgres", "neo4j")


@dataclass(frozen=True)
class WorkerSpec:
    """A process of ours that the supervisor keeps running beside the servers."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    restarts_after_success: bool = True


@dataclass(frozen=True)
class Desired:
    """What should run. `owner` ties the stack to a process: the stack stops when that process has gone."""

    parts: tuple[str, ...] = ()
    workers: dict[str, WorkerSpec] = field(default_factory=dict)
    owner: tuple[int, float] | None = None
    is_kafka_secure: bool = False


@dataclass
class PartStatus:
    """What one part is doing. `state` is starting, ready, waiting, stopping, stopped or finished."""

    state: str = "waiting"
    pid: int | None = None
    created_at: float | None = None
    started_at: float | None = None
    is_ready: bool = False
    restarts: int = 0
    last_exit: str | None = None
    detail: str | None = None
    fingerprint: str | None = None
    is_worker: bool = False


class StackState:
    """Reads and writes the files of one stack's state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def create(self) -> None:
        """Make the folder, or bring its state to this code's version; the second call changes nothing.

        Raises:
            StateTooNew: a newer Tidemark has written there; nothing was touched.
            StackBusy: an older one still runs there.
        """
        state_version.check(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.logs.mkdir(exist_ok=True)
        with self._locked("version"):
            for name in state_version.bring_forward(self.folder, self.is_supervised(), self.write):
                _log.info("state_brought_forward", step=name, folder=str(self.folder))

    @property
    def logs(self) -> Path:
        """Folder of the log files, one a part."""
        return self.folder / "logs"

    def log(self, part: str) -> Path:
        """Return the log file of a part."""
        return self.logs / f"{part}.log"

    def part_folder(self, part: str) -> Path:
        """Return the folder that one part owns."""
        return self.folder / part

    @property
    def supervisor_lock(self) -> Path:
        """File whose lock the running supervisor holds."""
        return self.folder / "supervisor.lock"

    def port(self, part: str, name: str) -> int:
        """Return a remembered port, choosing every port of the part on first use."""
        return self.ports(part)[name]

    def ports(self, part: str) -> dict[str, int]:
        """Return the remembered ports of a part, choosing free ones on first use."""
        with self._locked("ports"):
            known: dict[str, dict[str, int]] = self._read("ports.json") or {}
            mine = known.get(part, {})
            missing = [name for name in PORT_NAMES[part] if name not in mine]
            if missing:
                taken = {port for ports in known.values() for port in ports.values()}
                for name in missing:
                    mine[name] = _free_port(taken)
                    taken.add(mine[name])
                known[part] = mine
                self.write("ports.json", known)
            return mine

    def rechoose_taken_ports(self, part: str) -> str | None:
        """Choose anew the ports of a part that someone else listens on; return a sentence that says so, or None."""
        changes = []
        for name, port in self.ports(part).items():
            if not is_free(port):
                with self._locked("ports"):
                    known: dict[str, dict[str, int]] = self._read("ports.json") or {}
                    new = _free_port({p for ports in known.values() for p in ports.values()})
                    known[part][name] = new
                    self.write("ports.json", known)
                changes.append(f"{part}'s port {port} ({name}) is taken by another program; it moves to {new}.")
        return " ".join(changes) or None

    def secret(self, name: str) -> str:
        """Return a generated secret; all of them are made together on first use, in a file of mode 0600."""
        with self._locked("secrets"):
            known: dict[str, str] = self._read("secrets.json") or {}
            missing = [n for n in _SECRET_NAMES if n not in known]
            if missing:
                # Letters and digits only: the values stand in URLs and in Java property files.
                known.update({n: secrets.token_hex(16) for n in missing})
                self.write("secrets.json", known)
            return known[name]

    def desired(self) -> Desired:
        """Return what should run."""
        raw = self._read("desired.json") or {}
        workers = {
            name: WorkerSpec(tuple(w["argv"]), w["env"], tuple(w["depends_on"]), w["restarts_after_success"])
            for name, w in raw.get("workers", {}).items()
        }
        owner = raw.get("owner")
        return Desired(tuple(raw.get("parts", ())), workers, tuple(owner) if owner else None, raw.get("is_kafka_secure", False))

    @contextmanager
    def change_desired(self) -> Iterator[list[Desired]]:
        """Change what should run: replace the one element of the list. Writers wait for each other."""
        with self._locked("desired"):
            box = [self.desired()]
            before = box[0]
            yield box
            if box[0] != before or not (self.folder / "desired.json").exists():
                self.write("desired.json", asdict(box[0]))

    def status(self) -> dict[str, PartStatus]:
        """Return what the running supervisor last said of each part; empty where none runs or has spoken yet."""
        raw = self._read("status.json")
        if not raw or not is_alive(*raw["supervisor"]):
            return {}
        return {name: PartStatus(**values) for name, values in raw["parts"].items()}

    def write_status(self, parts: dict[str, PartStatus]) -> None:
        """Replace what this process, the supervisor, says of each part."""
        me = [os.getpid(), psutil.Process().create_time()]
        self.write("status.json", {"supervisor": me, "parts": {name: asdict(part) for name, part in parts.items()}})

    def supervisor_pid(self) -> int | None:
        """Return the running supervisor's pid."""
        raw = self._read("status.json")
        return int(raw["supervisor"][0]) if raw and is_alive(*raw["supervisor"]) else None

    def write(self, name: str, content: Any) -> None:
        """Replace a JSON file in one step, readable by its owner alone."""
        write_private(self.folder / name, json.dumps(content, indent=1))

    def is_supervised(self) -> bool:
        """Tell whether a supervisor runs, by its lock."""
        return is_locked(self.supervisor_lock)

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            path = self.folder / name
            raise StackError(f"{path} is damaged ({error}); run `tidemark down`, then `make clean`") from None

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner alone from its first moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def is_alive(pid: int, created_at: float) -> bool:
    """Tell whether the process of this pid and creation time (seconds since 1970) still runs."""
    try:
        process = psutil.Process(pid)
        # Both are read from the same clock; the slack is for its rounding.
        return abs(process.create_time() - created_at) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_locked(path: Path) -> bool:
    """Tell whether some process holds the lock on this file."""
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a port in TIME_WAIT counts as free, one with a listener does not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _free_port(taken: Sequence[int] | set[int]) -> int:
    # Random, so that stacks that start at the same moment do not meet.
    for _ in range(200):
        port = random.SystemRandom().randrange(*PORT_RANGE)
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port between {PORT_RANGE[0]} and {PORT_RANGE[1]}: stop something that listens there")
