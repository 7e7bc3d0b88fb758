"""The command on a stack: nothing there yet, then a page with what the warehouse and the log say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.cli import exits
from infra.cli.app import run
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres"]) as found:
        yield found


def test_it_writes_a_page_of_what_is_there(
    log: OwnLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = log.stack.state.folder
    monkeypatch.setenv("TIDEMARK_STATE_DIR", str(folder.parent))
    assert run(["--stack", folder.name, "dashboard"]) == exits.NOT_READY
    assert "there is no warehouse yet" in capsys.readouterr().err
    log.simulate(300, 5)
    log.drive("warehouse")
    capsys.readouterr()
    out = tmp_path / "folder" / "page.html"
    assert run(["--stack", folder.name, "dashboard", "--whole", "--refresh", "--out", str(out), "--json"]) == exits.OK
    found = json.loads(capsys.readouterr().out)
    assert sum(one["transactions"] for one in found["figures"]["volume"]) == 300
    assert found["figures"]["window"]["is_whole"] and found["figures"]["fresh_from"] > found["figures"]["window"]["since"]
    assert (found["log"]["problem"], found["log"]["quarantine"]) == (None, {})
    assert "True up to" in out.read_text("utf-8")
