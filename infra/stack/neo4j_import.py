"""Neo4j's offline import: sheets become the store of a generation that no server has opened yet, in one run of its own tool."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.settings import process_environment
from infra.stack import process
from infra.stack.errors import StackError
from infra.stack.java import JAVA_HOME, class_path, java
from infra.stack.neo4j import DATABASE, generation_folder, neo4j_part
from infra.stack.part import Part
from infra.stack.state import StackState
from projections.wallet_graph_sheets import Sheet

HEAP = "1g"  # 256 MB is too little for any import
OFF_HEAP = "1g"  # the tool's caches of nodes: 90 % of the machine by default
# A text is held whole: the largest record that Kafka takes here, every quote in it doubled, fits several times.
READ_BUFFER = "16m"
_NAME = "neo4j-import"
_POLL_S = 0.1
_SHOWN_LINES = 8
_FRAME = "\tat "  # a line of a stack trace: says nothing to who must act


def import_sheets(
    state: StackState, sheets: Sequence[Sheet], log: Path, *, told: Callable[[float], None] = lambda seconds: None, heap: str = HEAP
) -> None:
    """Make the database of generation 1 of this state folder from sheets. Nothing may serve it; what was there is overwritten.

    A killed caller leaves the tool running: `stop` ends it before anything else is done with the folder.

    Args:
        log: where the tool's output goes.
        told: called now and then with the seconds gone.

    Raises:
        StackError: the tool failed, for want of disk or memory for example; the message has its last lines.
    """
    stop(state)
    neo4j_part(state).prepare()
    home = state.part_folder("neo4j")
    part = Part(
        name=_NAME,
        argv=java(heap=heap, options=["-cp", class_path("neo4j")], main=_command(sheets, log.with_suffix(".report"))),
        env=process_environment({"JAVA_HOME": str(JAVA_HOME), "NEO4J_HOME": str(home), "NEO4J_CONF": str(home / "conf")}),
        folder=state.part_folder(_NAME),
    )
    log.write_bytes(b"")
    running = process.start(part, part.env, log)
    began = time.monotonic()
    try:
        while not running.wait(_POLL_S):
            told(time.monotonic() - began)
    finally:
        if running.exit_code() is None:
            running.kill()
            running.wait(10.0)
    if running.exit_code() != 0 or not (generation_folder(state, 1) / "databases" / DATABASE).is_dir():
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip() and not line.startswith(_FRAME)]
        raise StackError(
            f"Neo4j's import failed (exit status {running.exit_code()}); its log is {log}, which ends:\n" + "\n".join(lines[-_SHOWN_LINES:])
        )


def stop(state: StackState) -> None:
    """End an import that a killed process has left; nothing without one.

    Raises:
        StackBusy: it will not go.
    """
    process.stop_holders(state.part_folder(_NAME))


def _command(sheets: Sequence[Sheet], report: Path) -> list[str]:
    # Verbose, else the tool keeps to itself which row it refused.
    options = ["--verbose", "--overwrite-destination=true", "--bad-tolerance=0", "--strict=true", f"--max-off-heap-memory={OFF_HEAP}"]
    options += [f"--read-buffer-size={READ_BUFFER}", f"--report-file={report}"]
    multiline = ",".join(str(sheet.path) for sheet in sheets if sheet.is_multiline)
    if multiline:
        options += [f"--multiline-fields={multiline}", "--multiline-fields-format=v2"]
    for sheet in sheets:
        name = f"{sheet.plan.label}=" if sheet.plan.label else ""
        options.append(f"--{'nodes' if sheet.plan.is_node else 'relationships'}={name}{sheet.path}")
    return ["org.neo4j.cli.AdminTool", "database", "import", "full", DATABASE, *options]
