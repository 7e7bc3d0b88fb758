"""Environments beside the main one, for tools whose packages it cannot have: each with its own lock, installed at its first use.

They live in the main environment's folder, so `make distclean` removes them too; one carries the hash of its lock, appears in one step
when complete, and is never changed afterwards.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from domain.errors import TidemarkError

_SHARE = Path("share") / "tidemark" / "environments"


class EnvironmentMissing(TidemarkError):
    """An environment could not be installed; the message says why."""


def environment(
    name: str,
    lock: Path,
    say: Callable[[str], None],
    finish: Callable[[Path], None] = lambda folder: None,
    *,
    takes: str,
    depends: str = "",
) -> Path:
    """The folder of an installed environment (its Python is `bin/python`), installed first where it is missing.

    Args:
        lock: hashed requirements.
        say: told when something long begins.
        finish: does what is left to do in the folder after the packages.
        takes: what is downloaded, for whoever waits.
        depends: what else its content follows from.

    Raises:
        EnvironmentMissing: a download failed, or there is no uv.
    """
    digest = hashlib.sha256(lock.read_bytes() + depends.encode()).hexdigest()[:12]
    folder = Path(sys.prefix) / _SHARE / f"{name}-{digest}"
    if (folder / "complete").exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentMissing(f"the {name} environment cannot be made: {error}: it belongs to whoever ran `make setup`") from error
    with _alone(folder):
        if (folder / "complete").exists():  # another process was first
            return folder
        say(f"Installing the {name} environment, once ({takes})")
        shutil.rmtree(folder, ignore_errors=True)
        uv = Path(sys.prefix) / "bin" / "uv"
        if not uv.exists():
            raise EnvironmentMissing(f"{uv} is missing: run `make setup`")
        _run([str(uv), "venv", "--quiet", "--python", sys.executable, str(folder)], name)
        _run([str(uv), "pip", "sync", "--quiet", "--python", str(folder / "bin" / "python"), "--require-hashes", str(lock)], name)
        try:
            finish(folder)
        except (OSError, subprocess.CalledProcessError) as error:
            raise EnvironmentMissing(f"the {name} environment could not be finished: {error}; run it again to go on") from error
        (folder / "complete").touch()
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with folder.with_name(f".{folder.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], name: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-8:])
        raise EnvironmentMissing(f"the {name} environment could not be installed; run it again to go on. {last}")
