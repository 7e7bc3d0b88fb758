"""The mappings that come with Tidemark, found by name or by a file's header."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from infra.sources.errors import MappingError, UnreadableSource
from infra.sources.mapping import AnyMapping, LabelMapping, TransactionMapping, parse_mapping, read_mapping
from infra.sources.readers import open_rows, parse_json_row
from infra.sources.reading import Source

_HEADER_ROWS = 100  # a JSON object may leave out what it does not know, a hundred will hardly all


@cache
def shipped_mappings() -> dict[str, AnyMapping]:
    """Every shipped mapping by name."""
    folder = files("infra.sources").joinpath("mappings")
    texts = {entry.name: entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    found = [parse_mapping(texts[name], name) for name in sorted(texts)]
    return {mapping.name: mapping for mapping in found}


def transaction_mapping(name_or_path: str | Path) -> TransactionMapping:
    """A mapping of transactions, shipped or from a YAML file.

    Raises:
        UnreadableSource: neither a shipped name nor a readable file.
        MappingError: it has mistakes, or it describes something else.
    """
    found = _find(name_or_path)
    if not isinstance(found, TransactionMapping):
        raise MappingError(found.title, {"describes": f"expected transactions, found {found.describes}"})
    return found


def any_mapping(name_or_path: str | Path) -> AnyMapping:
    """A mapping of whatever it describes, shipped or from a YAML file.

    Raises:
        UnreadableSource: neither a shipped name nor a readable file.
        MappingError: it has mistakes.
    """
    return _find(name_or_path)


def label_mapping(name_or_path: str | Path) -> LabelMapping:
    """A mapping of labels, shipped or from a YAML file.

    Raises:
        UnreadableSource: neither a shipped name nor a readable file.
        MappingError: it has mistakes, or it describes something else.
    """
    found = _find(name_or_path)
    if not isinstance(found, LabelMapping):
        raise MappingError(found.title, {"describes": f"expected labels, found {found.describes}"})
    return found


def detect(header: tuple[str, ...]) -> AnyMapping | None:
    """The shipped mapping whose columns are all in the header; of several the one that names most."""
    names = set(header)
    fitting = [mapping for mapping in shipped_mappings().values() if names.issuperset(mapping.columns())]
    return max(fitting, key=lambda mapping: len(mapping.columns()), default=None)


def header_of(source: Source) -> tuple[str, ...]:
    """A file's column names: of JSON lines, those of the first hundred rows.

    Raises:
        UnreadableSource: nothing can be read.
    """
    reader = open_rows(source, lambda header: ())
    if reader.header:
        return reader.header
    names: dict[str, None] = {}
    for raw in reader.runs(_HEADER_ROWS):
        for row in range(raw.count):
            try:
                names.update(dict.fromkeys(parse_json_row(raw.raw(row))))
            except ValueError:
                continue
        if names:
            return tuple(names)
    raise UnreadableSource(f"{source}: expected a header or JSON objects, found neither")


def _find(name_or_path: str | Path) -> AnyMapping:
    shipped = shipped_mappings()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    if not Path(name_or_path).exists():
        raise UnreadableSource(f"{name_or_path}: neither a file nor one of the shipped mappings {sorted(shipped)}")
    return read_mapping(name_or_path)
