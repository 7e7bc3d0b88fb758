"""The reference pages, made from the program so that they cannot go stale: docs/cli.md and docs/settings.md.

`python -m infra.cli.reference` writes both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel, SecretStr
from rich.text import Text

from infra.cli import exits

DOCS = Path(__file__).resolve().parents[2] / "docs"
_MADE = "<!-- Made by `python -m infra.cli.reference`; edit the program, not this page. -->"
_OF_TYPER = ("--install-completion", "--show-completion", "--help")


def render() -> str:
    """The page of every command with its arguments, options and examples."""
    lines = ["# Commands", "", _MADE, "", "`tidemark --help` groups them; every command takes `--help`.", ""]
    lines += ["| Exit status | Meaning |", "|---|---|"]
    lines += [f"| {status} | {meaning} |" for status, meaning in exits.MEANINGS.items()]
    top = root()
    lines += ["", "## Options before the command", "", *_parameters(top)]
    for path, found in leaves():
        lines += [f"## {path}", "", _text(found.help or ""), "", *_parameters(found)]
        lines += ["```", *examples(found), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def render_settings() -> str:
    """The page of every setting with its variable, default and meaning."""
    from infra.settings import Settings

    lines = ["# Settings", "", _MADE, ""]
    lines += [
        "A setting comes, first match wins, from an option of a command, the variable below, or the JSON file that",
        "`TIDEMARK_SECRETS_FILE` names, which has the same shape and must be readable by its owner alone (`chmod 600`).",
        "On AWS `TIDEMARK_SECRETS_ARN` names a secret of Secrets Manager that holds the same JSON.",
        "A server whose address is set is your own: `tidemark up` does not start it.",
        "",
        "| Variable | Default | Meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | {default} | {_text(doc)} |" for name, default, doc in settings(Settings)]
    return "\n".join(lines) + "\n"


@cache
def root() -> Any:
    """The application as Click's command tree."""
    from infra.cli import commands  # noqa: F401  declares every command
    from infra.cli.app import app

    return typer.main.get_command(app)


def leaves() -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its whole name, sorted by name."""
    yield from sorted(_below("tidemark", root()))


def options_of(command: Any) -> list[str]:
    """The long options of a command."""
    found = [option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)]
    return [option for option in found if option.startswith("--") and option not in _OF_TYPER]


def examples(command: Any) -> list[str]:
    """The examples of a command's help."""
    paragraphs = (command.epilog or "").split("\n\n")[1:]
    return [Text.from_markup(paragraph).plain for paragraph in paragraphs]


def settings(model: type[BaseModel], prefix: str = "TIDEMARK_") -> Iterator[tuple[str, str, str]]:
    """(variable, default in words, meaning) of every setting, groups flattened."""
    for name, field in model.model_fields.items():
        kind = next((t for t in (field.annotation, *get_args(field.annotation)) if _is_group(t)), None)
        if kind is not None:
            yield from settings(kind, f"{prefix}{name.upper()}__")
            continue
        default = "" if field.default is None or field.default_factory is not None else f"`{_plain(field.default)}`"
        if name == "state_dir":
            default = "`.tidemark` beside the project"
        choices = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
        listed = f" One of {', '.join(choices)}." if choices else ""
        yield f"{prefix}{name.upper()}", default, (field.description or "") + listed


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, found in getattr(command, "commands", {}).items():
        if getattr(found, "commands", None):
            yield from _below(f"{path} {name}", found)
        else:
            yield f"{path} {name}", found


def _parameters(command: Any) -> list[str]:
    rows = []
    for parameter in command.params:
        if not set(parameter.opts).isdisjoint(_OF_TYPER):
            continue
        if parameter.param_type_name == "argument":
            name = f"`{(parameter.metavar or parameter.name).upper()}`"
        else:
            name = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
        kind = parameter.type_descriptor.annotation if hasattr(parameter, "type_descriptor") else None
        choices = list(kind) if isinstance(kind, type) and issubclass(kind, Enum) else []
        words = [_text(parameter.help or "")]
        if choices:
            words.append(f"One of {', '.join(_plain(choice) for choice in choices)}.")
        if parameter.required:
            words.append("Required.")
        elif not callable(parameter.default) and parameter.default not in (None, False, ()):
            words.append(f"Default `{parameter.opts[0] if parameter.default is True else _plain(parameter.default)}`.")
        rows.append(f"| {name} | {' '.join(words)} |")
    return ["| | |", "|---|---|", *rows, ""] if rows else []


def _plain(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "set"
    return str(value.value if isinstance(value, Enum) else value)


def _text(text: str) -> str:
    """Text for a Markdown table: one line, and no bracket that would be taken for HTML."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()).replace("|", "\\|"))
    return "".join(piece if piece.startswith("`") else piece.replace("<", "&lt;") for piece in pieces)


def write(folder: Path = DOCS) -> None:
    """Write both pages."""
    folder.mkdir(exist_ok=True)
    (folder / "cli.md").write_text(render(), "utf-8")
    (folder / "settings.md").write_text(render_settings(), "utf-8")


if __name__ == "__main__":
    write()
