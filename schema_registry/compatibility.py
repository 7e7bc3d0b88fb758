"""Whether two schema versions can read each other, and if not, why, in words.

The rules are Avro's schema resolution (specification 1.11, "Schema Resolution"), in both directions, with what our fast decoder
adds: no maps, no nullable enums, unions only of null and one other.
"""

from __future__ import annotations

from typing import Any

from schema_registry.errors import IncompatibleSchema

_PROMOTIONS = {("int", "long"), ("int", "float"), ("int", "double"), ("long", "float"), ("long", "double"), ("float", "double")}


def check(old: dict[str, Any], new: dict[str, Any], where: str) -> None:
    """Prove that readers of either version can read records of the other.

    Raises:
        IncompatibleSchema: with every mistake, a line each.
    """
    mistakes = _differences(old, new, "old readers could not read new records") + _differences(
        new, old, "new readers could not read old records"
    )
    mistakes += _habits(new, "")
    if mistakes:
        raise IncompatibleSchema(f"{where}: " + "; ".join(dict.fromkeys(mistakes)))


def _differences(reader: Any, writer: Any, what: str, path: str = "") -> list[str]:
    if isinstance(reader, list) or isinstance(writer, list):
        readers = reader if isinstance(reader, list) else [reader]
        writers = writer if isinstance(writer, list) else [writer]
        found = []
        for branch in writers:
            if not any(not _differences(candidate, branch, what, path) for candidate in readers):
                found.append(f"{path or 'record'}: {what}: no branch takes {_word(branch)}")
        return found
    mine, theirs = _kind(reader), _kind(writer)
    if mine != theirs:
        return [] if (theirs, mine) in _PROMOTIONS else [f"{path}: {what}: expected {_word(reader)}, found {_word(writer)}"]
    if mine == "record":
        return _records(reader, writer, what, path)
    if mine == "enum":
        unknown = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
        return [f"{path}: {what}: symbols {unknown} are unknown and there is no default"] if unknown and "default" not in reader else []
    if mine == "array":
        return _differences(reader["items"], writer["items"], what, path + "[]")
    if isinstance(reader, dict) and isinstance(writer, dict):
        for key in ("logicalType", "precision", "scale", "size"):
            if reader.get(key) != writer.get(key):
                return [f"{path}: {what}: {key} {reader.get(key)} is not {writer.get(key)}"]
    elif isinstance(reader, dict) != isinstance(writer, dict) and "logicalType" in (reader if isinstance(reader, dict) else writer):
        return [f"{path}: {what}: {_word(reader)} is not {_word(writer)}"]
    return []


def _records(reader: dict[str, Any], writer: dict[str, Any], what: str, path: str) -> list[str]:
    if reader["name"] != writer["name"] and writer["name"] not in reader.get("aliases", ()):
        return [f"{path or 'record'}: {what}: {reader['name']} is not {writer['name']}"]
    written = {field["name"]: field for field in writer["fields"]}
    found = []
    for field in reader["fields"]:
        match = written.get(field["name"]) or next((written[a] for a in field.get("aliases", ()) if a in written), None)
        here = f"{path}.{field['name']}" if path else field["name"]
        if match is None:
            if "default" not in field:
                found.append(f"{here}: {what}: the field is missing and has no default")
        else:
            found += _differences(field["type"], match["type"], what, here)
    return found


def _habits(schema: dict[str, Any], path: str) -> list[str]:
    found = []
    for field in schema["fields"]:
        here = f"{path}.{field['name']}" if path else field["name"]
        if not field.get("doc"):
            found.append(f"{here}: has no doc")
        branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
        if len(branches) > 1 and (len(branches) > 2 or branches[0] != "null"):
            found.append(f"{here}: a union must be null and one other type, null first")
        for branch in branches:
            if _kind(branch) == "map" or (_kind(branch) == "enum" and len(branches) > 1):
                found.append(f"{here}: maps and nullable enums are not read by the columnar decoder")
            if _kind(branch) == "enum" and "default" not in branch:
                found.append(f"{here}: an enum needs a default symbol")
            if _kind(branch) == "record":
                found += _habits(branch, here)
    return found


def _kind(schema: Any) -> str:
    kind = schema["type"] if isinstance(schema, dict) else schema
    return str(kind)


def _word(schema: Any) -> str:
    return str(schema.get("name") or schema.get("logicalType") or schema["type"]) if isinstance(schema, dict) else str(schema)
