"""Data Docs without the network: Great Expectations asks six servers for styles and scripts; these pages ask none."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path

_REMOTE = re.compile(
    r"""<script\b[^>]*\bsrc\s*=\s*["']https?://[^>]*>\s*</script\s*>|<link\b[^>]*\bhref\s*=\s*["']https?://[^>]*>"""
    r"""|<img\b[^>]*\bsrc\s*=\s*["']https?://[^>]*>""",
    re.IGNORECASE,
)
_SCRIPT = re.compile(r"<script\b.*?</script\s*>|<footer\b.*?</footer\s*>", re.IGNORECASE | re.DOTALL)
_STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; background: #fff; }
body { margin: auto; max-width: 72rem; padding: 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; width: 100%; }
th, td { border: 1px solid #d5dbe1; padding: .35rem .6rem; text-align: left; vertical-align: top; }
a { color: #0b5cad; } .text-success, .ok { color: #14713d; } .text-danger, .failed { color: #a4161a; }
.modal, .navbar, .navigation, footer, .cooltip .top, .btn, #ge-cta-footer { display: none; }
@media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #10161d; } th, td { border-color: #3a4652; } }
</style>"""
_REMOTE_IMAGE = re.compile(r"""url\(\s*['"]?https?://[^)]*\)""", re.IGNORECASE)
_TITLE = "Expectations on the warehouse"


def make_offline(folder: Path, success_by_table: Mapping[str, bool]) -> Path:
    """Rewrite every page below `folder` so that it loads nothing from elsewhere, and write an index of plain links.

    Scripts go too: without the remote libraries none of them runs.

    Args:
        folder: where Great Expectations has written its site.
        success_by_table: the tables validated, and whether all of their expectations hold.

    Returns:
        The index page.
    """
    index = folder / "index.html"
    for page in folder.rglob("*.html"):
        if page != index:
            text = _REMOTE_IMAGE.sub("none", _SCRIPT.sub("", _REMOTE.sub("", page.read_text("utf-8"))))
            page.write_text(text.replace("</head>", _STYLE + "</head>", 1), "utf-8")
    for style in folder.rglob("*.css"):
        style.write_text(_REMOTE_IMAGE.sub("none", style.read_text("utf-8")), "utf-8")
    index.write_text(_index(folder, success_by_table), "utf-8")
    return index


def _index(folder: Path, success_by_table: Mapping[str, bool]) -> str:
    rows = []
    for page in sorted(folder.rglob("*.html")):
        place = page.relative_to(folder)
        if place.parts[0] != "validations":
            continue
        is_ok = success_by_table[place.parts[1]]
        words = ("ok", "all hold") if is_ok else ("failed", "some are broken")
        name = html.escape(place.parts[1])
        link = html.escape(place.as_posix(), quote=True)
        rows.append(f'<tr><td><a href="{link}">{name}</a></td><td class="{words[0]}">{words[1]}</td></tr>')
    body = "\n".join(rows)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_TITLE}</title>{_STYLE}</head>\n'
        f"<body><h1>{_TITLE}</h1>\n<table><tr><th>table</th><th>result</th></tr>\n{body}\n</table></body></html>\n"
    )
