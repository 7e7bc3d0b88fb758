"""Which read models there are: what an installed package adds, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import InvalidValue
from infra.cli import exits
from infra.cli.app import run
from infra.read_models import BUILT_IN, BrokenProjection, names, read_model, set_aside_by
from tests.example_projection import installed


def test_an_installed_projection_is_a_read_model_like_those_built_in(tmp_path: Path) -> None:
    assert names() == tuple(BUILT_IN)
    with installed(tmp_path / "site") as module:
        assert names() == (*BUILT_IN, "net-flow")
        model = read_model("net-flow")
        assert model.table_projection() is module.NetFlow
        assert set_aside_by("net-flow") is model
        assert (model.needs, set_aside_by("wallet-graph")) == (("postgres",), BUILT_IN["graph"])
    with pytest.raises(InvalidValue, match="expected one of archive, curated, warehouse, graph, found 'net-flow'"):
        read_model("net-flow")


@pytest.mark.parametrize("name", ["warehouse", "wallet-graph", "log", "postgres", "pg-stat", "iceberg"])
def test_a_name_that_is_taken_is_refused_with_the_package(name: str, tmp_path: Path) -> None:
    with (
        installed(tmp_path / "site", {name: "net_flow:NetFlow"}),
        pytest.raises(BrokenProjection, match=r"of net-flow 1\.0\.0 has a name that is taken"),
    ):
        names()


@pytest.mark.parametrize("name", ["Net", "net_flow", "net--flow", "net-flow-g2", "x" * 41, "1st"])
def test_a_name_that_makes_no_schema_is_refused(name: str, tmp_path: Path) -> None:
    with installed(tmp_path / "site", {name: "net_flow:NetFlow"}), pytest.raises(BrokenProjection, match="expected a name of at most 40"):
        names()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("net_flow:Missing", "cannot be imported: AttributeError"),
        ("no_such_module:NetFlow", "cannot be imported: ModuleNotFoundError"),
        ("net_flow:hourly", "is no subclass of projections.table_projection.TableProjection"),
    ],
)
def test_what_cannot_be_used_is_known_by_name_and_refused_when_it_is_opened(value: str, said: str, tmp_path: Path) -> None:
    with installed(tmp_path / "site", {"net-flow": value}):
        assert "net-flow" in names()
        with pytest.raises(BrokenProjection, match=f"net-flow .*from net-flow 1.0.0.*{said}"):
            read_model("net-flow").table_projection()


def test_its_entry_point_must_bear_its_own_name(tmp_path: Path) -> None:
    with installed(tmp_path / "site", {"other": "net_flow:NetFlow"}), pytest.raises(BrokenProjection, match="calls itself 'net-flow'"):
        read_model("other").table_projection()


@pytest.mark.parametrize("words", [["run", "nobody"], ["verify", "nobody"], ["rebuild", "nobody"]])
def test_commands_name_what_there_is(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with installed(tmp_path / "site"):
        assert run(words) == exits.USAGE
    assert "net-flow" in capsys.readouterr().err
