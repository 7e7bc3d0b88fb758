"""The little web server of Neo4j Browser's guides and style: one folder, loopback, readable from the Browser's origin.

Run as `python -m infra.stack.guides <port> <folder>`. The Browser asks from another origin, so each answer names the
cross-origin headers that it wants, and OPTIONS is answered.
"""

from __future__ import annotations

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from infra.stack.http import client
from infra.stack.part import Part
from infra.stack.state import LOOPBACK, StackState


def guides_folder(state: StackState) -> Path:
    """Return the folder that is served: whatever is put there can be opened in the Browser."""
    return state.folder / "guides"


def guides_url(state: StackState) -> str:
    """Return the served address. `localhost`, not 127.0.0.1: the Browser's whitelist and deep links want the name."""
    return f"http://localhost:{state.port('guides', 'http')}"


def guides_part(state: StackState) -> Part:
    """Describe the guides' server."""
    folder = guides_folder(state)
    port = state.port("guides", "http")
    return Part(
        name="guides",
        # Its own lock folder: the served one holds guides alone.
        argv=[sys.executable, "-m", "infra.stack.guides", str(port), str(folder)],
        env={},
        folder=state.folder / "guides-server",
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        ports=(port,),
        probe=lambda: _probe(port),
        stop_timeout_s=3.0,
    )


class _GuidesHandler(SimpleHTTPRequestHandler):
    """Serves files, never a listing of the folder, with cross-origin headers."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        self.send_header("Access-Control-Allow-Headers", self.headers.get("Access-Control-Request-Headers") or "*")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def do_OPTIONS(self) -> None:
        self.send_response(204)
        self.end_headers()

    def list_directory(self, path: object) -> None:
        self.send_error(404)


def serve(port: int, folder: Path) -> None:
    """Serve the folder on loopback until killed."""
    ThreadingHTTPServer((LOOPBACK, port), partial(_GuidesHandler, directory=str(folder))).serve_forever()


def _probe(port: int) -> None:
    answer = client().options(f"http://{LOOPBACK}:{port}/")
    answer.raise_for_status()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
