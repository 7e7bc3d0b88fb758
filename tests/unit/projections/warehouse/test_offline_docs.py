"""Pages that were written for the network, made to do without it."""

from __future__ import annotations

from pathlib import Path

from projections.warehouse.offline_docs import make_offline

PAGE = """<html><head><link rel="stylesheet" href="https://cdn.example/x.css"><script src="https://cdn.example/x.js"></script>
<link rel="stylesheet" href="static/own.css"></head><body><script>run()</script><p>kept</p>
<img src="https://cdn.example/x.png"><footer><a href="https://news.example">news</a></footer></body></html>"""


def test_a_page_keeps_its_text_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = tmp_path / "validations" / "fact_score" / "run" / "page.html"
    page.parent.mkdir(parents=True)
    page.write_text(PAGE, "utf-8")
    (tmp_path / "own.css").write_text("p { background: url('https://cdn.example/x.png') }", "utf-8")
    index = make_offline(tmp_path, {"fact_score": False})
    text = page.read_text("utf-8")
    assert "https://" not in text and "<script" not in text
    assert "<p>kept</p>" in text and "static/own.css" in text
    assert "https://" not in (tmp_path / "own.css").read_text("utf-8")
    assert 'href="validations/fact_score/run/page.html"' in index.read_text("utf-8")
    assert "some are broken" in index.read_text("utf-8")
