"""Neo4j Community with its Browser. Each generation of the wallet graph is one data folder.

neo4j/generations/<n>/    data, transaction logs and the system database of one generation
neo4j/current             symbolic link to the live generation, resolved at each start
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from pathlib import Path

from infra.stack.errors import StackError
from infra.stack.guides import guides_url
from infra.stack.http import PROBE_TIMEOUT_S, client
from infra.stack.java import class_path, java
from infra.stack.part import Part
from infra.stack.state import LOOPBACK, StackState, write_private

USER = "neo4j"
DATABASE = "wallets"
STYLE_FILE = "style.grass"
HEAP = "640m"
PAGE_CACHE = "512m"
# Neo4j's own count: SystemGraphCredential reads the number from the file.
_HASH_ITERATIONS = 1024
_OPENS = ("java.nio", "java.io", "sun.nio.ch", "java.lang", "jdk.internal.misc")

# Magic number, then the versions offered: 5.0 to 5.4, 4.4, and two empty places. Source: Bolt Protocol, handshake.
_BOLT_HANDSHAKE = bytes.fromhex("6060b017 00040405 00000404 00000000 00000000")

# Validated at start: one mistyped setting keeps the server down.
_CONFIGURATION = """\
server.directories.data={data}
server.directories.logs={logs}
server.directories.run={run}
server.directories.import={run}
server.directories.plugins={plugins}
initial.dbms.default_database={database}
server.default_listen_address=127.0.0.1
server.bolt.enabled=true
server.bolt.listen_address=127.0.0.1:{bolt}
server.bolt.advertised_address=127.0.0.1:{bolt}
server.bolt.tls_level=DISABLED
server.http.enabled=true
server.http.listen_address=127.0.0.1:{http}
server.http.advertised_address=127.0.0.1:{http}
server.https.enabled=false
server.memory.heap.initial_size={heap}
server.memory.heap.max_size={heap}
server.memory.pagecache.size={page_cache}
db.tx_log.rotation.retention_policy=2 days 512M
dbms.usage_report.enabled=false
dbms.security.auth_enabled=true
browser.remote_content_hostname_whitelist=127.0.0.1,localhost
browser.post_connect_cmd=style {guides}/{style}
client.allow_telemetry=false
# Bolt is done when its connections are: the default waits for five idle seconds, twice, while readers wait for the next generation.
internal.dbms.bolt.netty_server_shutdown_quiet_period=0
"""


def bolt_uri(state: StackState) -> str:
    """Return the address for drivers."""
    return f"bolt://{LOOPBACK}:{state.port('neo4j', 'bolt')}"


def http_url(state: StackState) -> str:
    """Return the address of the HTTP interface."""
    return f"http://{LOOPBACK}:{state.port('neo4j', 'http')}"


def browser_url(state: StackState) -> str:
    """Return the address of Neo4j Browser, this server filled in."""
    return f"{http_url(state)}/browser/?dbms=bolt://{USER}@{LOOPBACK}:{state.port('neo4j', 'bolt')}"


def generation_folder(state: StackState, generation: int) -> Path:
    """Return the data folder of a generation."""
    return state.part_folder("neo4j") / "generations" / str(generation)


def current_generation(state: StackState) -> int:
    """Return the live generation; 1 before the first start."""
    link = state.part_folder("neo4j") / "current"
    return int(link.readlink().name) if link.is_symlink() else 1


def prepare_generation(state: StackState, generation: int) -> Path:
    """Make the data folder of a generation with the stack's password in it; the second call changes nothing."""
    folder = generation_folder(state, generation)
    authority = folder / "dbms" / "auth.ini"
    if not authority.exists():
        authority.parent.mkdir(parents=True, exist_ok=True)
        write_private(authority, _initial_user(state.secret("neo4j")))
    return folder


def make_current(state: StackState, generation: int) -> None:
    """Make a generation the one that the next start serves, in one step."""
    prepare_generation(state, generation)
    home = state.part_folder("neo4j")
    temporary = home / f".current.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path("generations") / str(generation))
    temporary.replace(home / "current")


def neo4j_part(state: StackState) -> Part:
    """Describe Neo4j."""
    home = state.part_folder("neo4j")
    configuration = home / "conf" / "neo4j.conf"
    options = [f"-Xms{HEAP}", "-XX:+UseG1GC", "-XX:-OmitStackTraceInFastThrow", "-XX:MaxMetaspaceSize=256m"]
    options += [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENS]
    options += ["-Dio.netty.tryReflectionSetAccessible=true", "-Dfile.encoding=UTF-8", "-cp", class_path("neo4j")]
    entry = "org.neo4j.server.CommunityEntryPoint"
    main = [entry, f"--home-dir={home}", f"--config-dir={configuration.parent}", "--console-mode"]

    def prepare() -> None:
        make_current(state, current_generation(state))
        for name in ("conf", "run", "plugins", "logs"):
            (home / name).mkdir(exist_ok=True)
        text = _CONFIGURATION.format(
            data=(home / "current").resolve(),
            logs=home / "logs",
            run=home / "run",
            plugins=home / "plugins",
            database=DATABASE,
            heap=HEAP,
            page_cache=PAGE_CACHE,
            guides=guides_url(state),
            style=STYLE_FILE,
            **state.ports("neo4j"),
        )
        write_private(configuration, text)

    return Part(
        name="neo4j",
        argv=java(heap=HEAP, options=options, main=main),
        env={"NEO4J_HOME": str(home)},
        folder=home,
        prepare=prepare,
        ports=tuple(state.ports("neo4j").values()),
        probe=lambda: _probe(state),
        stop_timeout_s=60.0,
    )


def _initial_user(password: str) -> str:
    """Return the line that `neo4j-admin dbms set-initial-password` would write, without a password on a command line.

    Neo4j reads it when it first makes its system database. Source: SystemGraphCredential and SecureHasher of Neo4j 5
    (Shiro's SHA-256: salt, then password, then the digest of the digest).
    """
    salt = secrets.token_bytes(32)
    digest = hashlib.sha256(salt + password.encode()).digest()
    for _ in range(_HASH_ITERATIONS - 1):
        digest = hashlib.sha256(digest).digest()
    return f"{USER}:SHA-256,{digest.hex()},{salt.hex()},{_HASH_ITERATIONS}:\n"


def _probe(state: StackState) -> None:
    """Agree on a Bolt version, then log in and run a query.

    Without the driver, which costs the supervisor 90 MB and 2.5 s of start (it brings pandas in).
    """
    with socket.create_connection((LOOPBACK, state.port("neo4j", "bolt")), timeout=PROBE_TIMEOUT_S) as connection:
        connection.sendall(_BOLT_HANDSHAKE)
        if connection.recv(4) in (b"", b"\x00\x00\x00\x00"):
            raise StackError("Neo4j speaks no Bolt version that we offer")
    answer = client().post(
        f"{http_url(state)}/db/{DATABASE}/tx/commit",
        json={"statements": [{"statement": "RETURN 1"}]},
        auth=(USER, state.secret("neo4j")),
    )
    errors = answer.raise_for_status().json()["errors"]
    if errors:
        raise StackError(f"Neo4j: {errors[0]['message']}")
