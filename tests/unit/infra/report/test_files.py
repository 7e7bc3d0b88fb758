"""A saved report is whole, and reads back."""

from __future__ import annotations

import pytest

from infra.report import ReportUnreadable, load, save
from infra.report import files as files_module
from tests.unit.infra.report import samples


def names(folder) -> set[str]:
    return {str(found.relative_to(folder)) for found in folder.rglob("*") if found.is_file()}


def test_a_report_is_saved_with_page_and_figures_and_reads_back(tmp_path):
    page = save(samples.full(), tmp_path / "report")
    plots = {f"plots/{name}.png" for name in ("detection", "throughput", "latency", "scores", "alerts")}
    assert names(tmp_path / "report") == {"report.json", "report.html"} | plots
    assert page.read_text("utf-8").count("data:image/png;base64,") == 5
    assert load(tmp_path / "report") == samples.full()


def test_a_newer_report_leaves_nothing_of_the_older(tmp_path):
    save(samples.full(), tmp_path)
    save(samples.empty(), tmp_path)
    assert names(tmp_path) == {"report.json", "report.html"}
    assert load(tmp_path) == samples.empty()


def test_a_failed_save_leaves_the_older_report(tmp_path, monkeypatch):
    save(samples.empty(), tmp_path)
    before = (tmp_path / "report.json").read_bytes(), (tmp_path / "report.html").read_bytes()

    def full_disk(self, target):
        raise OSError("no space left")

    monkeypatch.setattr(files_module.Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        save(samples.red().model_copy(update={"stages": (), "alerts": ()}), tmp_path)
    monkeypatch.undo()
    assert ((tmp_path / "report.json").read_bytes(), (tmp_path / "report.html").read_bytes()) == before
    assert names(tmp_path) == {"report.json", "report.html"}, "no unfinished file stays"


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"{}"], ids=["missing", "empty", "not text", "not a report"])
def test_a_folder_without_a_report_says_so(tmp_path, content):
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(ReportUnreadable):
        load(tmp_path)
