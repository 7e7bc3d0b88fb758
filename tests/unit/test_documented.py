"""Every command, option and setting is documented, and every command that the documents name exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.cli.reference import DOCS, examples, leaves, options_of, render, render_settings, root, settings
from infra.settings import Settings

PROJECT = DOCS.parent
REGENERATE = "run `python -m infra.cli.reference` and commit the pages"
COMMANDS = dict(leaves())
PAGES = sorted([PROJECT / "README.md", *DOCS.rglob("*.md")])
# A command of ours inside a code span, or at the start of a line of a code block, after a prompt or variables.
SPAN = re.compile(r"`((?:tidemark|make) [^`]+)`")
LINE = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:.* \| )?((?:tidemark|make) [a-z-].*)$")


def mentioned(page: Path) -> Iterator[tuple[int, str]]:
    """(line number, command line) of everything on a page that a reader would type."""
    is_code = False
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
            continue
        if is_code:
            found = LINE.match(line.strip())
            if found:
                yield number, found[1]
        else:
            for span in SPAN.finditer(line):
                yield number, span[1]


def words_of(text: str) -> list[str]:
    """The words of a command line, up to what follows it in a shell."""
    before = re.split(r"\s(?:#|>|\||&&|2>)(?:\s|$)", text)[0]
    try:
        return shlex.split(before)
    except ValueError:  # an apostrophe of the text around it
        return before.split()


def complaint(words: list[str]) -> str | None:
    """Why a `tidemark` command line does not exist, or None."""
    command: Any = root()
    path = "tidemark"
    rest = words[1:]
    allowed = {"--help", "-h", *options_of(command)}
    while rest:
        word = rest[0]
        if word.startswith("-") and word != "-":
            if word.split("=")[0] not in allowed:
                return f"{path} has no option {word}"
            if word in ("--stack",):
                rest = rest[1:]
        elif getattr(command, "commands", None):
            # `alerts list|show` names two commands at once.
            names = word.rstrip(".,;:").split("|")
            for name in names:
                if name not in command.commands:
                    return f"{path} has no command {name}"
            command = command.commands[names[0]]
            path = f"{path} {names[0]}"
            allowed = {"--help", "-h", *options_of(command)}
        rest = rest[1:]
    return None


def make_targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text("utf-8"), re.MULTILINE))


def test_the_page_of_commands_is_the_programs() -> None:
    assert (DOCS / "cli.md").read_text("utf-8") == render(), REGENERATE


def test_the_page_of_settings_is_the_programs() -> None:
    assert (DOCS / "settings.md").read_text("utf-8") == render_settings(), REGENERATE


def test_every_setting_has_a_meaning() -> None:
    found = list(settings(Settings))
    assert len(found) > 30
    assert [name for name, _, doc in found if not doc] == []


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_has_help_examples_and_described_parameters(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    assert examples(command), "an example says more than a description"
    assert [parameter.name for parameter in command.params if not getattr(parameter, "help", None)] == []


@pytest.mark.parametrize("path", COMMANDS)
def test_the_examples_of_a_command_exist(path: str) -> None:
    for example in examples(COMMANDS[path]):
        own = example[example.index("tidemark ") :]
        assert complaint(words_of(own)) is None, example


@pytest.mark.parametrize("path", COMMANDS)
def test_help_runs(path: str) -> None:
    from infra.cli.app import app

    result = CliRunner().invoke(app, [*path.split()[1:], "--help"])
    assert result.exit_code == 0, result.output
    assert "Examples" in result.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    targets = make_targets()
    wrong = []
    for number, text in mentioned(page):
        words = words_of(text)
        if words[0] == "make":
            named = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            missing = [word for word in named[:1] if word.rstrip(".,;:") not in targets]
            wrong += [f"line {number}: make {word}" for word in missing]
        elif (found := complaint(words)) is not None:
            wrong.append(f"line {number}: `{text}`: {found}")
    assert wrong == []


def test_every_command_that_the_makefile_runs_exists() -> None:
    text = (PROJECT / "Makefile").read_text("utf-8")
    for name in re.findall(r"\$\(TIDEMARK\) ([a-z]+)", text):
        assert f"tidemark {name}" in COMMANDS


def test_the_checker_finds_what_does_not_exist() -> None:
    assert complaint(["tidemark", "nonsense"]) is not None
    assert complaint(["tidemark", "verify", "--nonsense"]) is not None
    assert complaint(["tidemark", "alerts", "list|nonsense"]) is not None
    assert complaint(["tidemark", "--stack", "demo-small", "verify", "warehouse", "--json"]) is None
