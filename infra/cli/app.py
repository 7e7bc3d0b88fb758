"""The application: its global options, how a command is declared, and how an error leaves it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape

from infra.cli import exits, output
from infra.cli.context import chosen

EPILOG = "  ".join(["[bold]Exit status[/]", *(f"[cyan]{status}[/] {meaning}." for status, meaning in exits.MEANINGS.items())])
# How `tidemark --help` groups the commands.
START, DATA, PROOF, MODEL, CASES = (
    "Start and stop",
    "Bring data in",
    "Prove and repair",
    "Learn and score",
    "Investigate",
)

app = typer.Typer(
    name="tidemark",
    help="Fraud detection on an event log: every read model knows the offset up to which it is true, and can prove it.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


@app.callback()
def _options(
    stack: Annotated[str | None, typer.Option(help="Local stack to speak to; by default the one that runs.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything, and show where an error came from.")] = False,
) -> None:
    chosen.stack = stack
    chosen.is_debug = debug


def group(name: str, help_: str, panel: str) -> typer.Typer:
    """A group of commands below the application."""
    sub = typer.Typer(help=help_, no_args_is_help=True, rich_markup_mode="rich")
    app.add_typer(sub, name=name, rich_help_panel=panel)
    return sub


Command = TypeVar("Command", bound=Callable[..., int | None])


def command(name: str, *, of: typer.Typer = app, panel: str | None = None, examples: Sequence[str]) -> Callable[[Command], Command]:
    """Declare a command. It returns its exit status (none is 0); its errors become one sentence.

    Args:
        panel: heading in `tidemark --help`, for a command of the application itself.
        examples: command lines for its help.
    """

    def declare(function: Command) -> Command:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            raise typer.Exit(guard(lambda: function(*args, **kwargs)))

        epilog = "\n\n".join(["[bold]Examples[/]", *(f"[cyan]{escape(example)}[/]" for example in examples)])
        of.command(name, epilog=epilog, rich_help_panel=panel)(guarded)
        return function

    return declare


def guard(work: Callable[[], int | None]) -> int:
    """Do a command's work and return its exit status: an error of ours is one sentence, Ctrl-C ends quietly."""
    from infra.logs import configure

    configure("debug" if chosen.is_debug else "error")
    try:
        return work() or exits.OK
    except KeyboardInterrupt:
        output.say("Stopped.")
        return exits.STOPPED
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:  # the outermost loop: whatever it is, a person reads it
        if chosen.is_debug:
            output.errors.print_exception()
        if exits.is_expected(error):
            output.fail(error)
            return exits.status_of(error)
        output.fail(f"Unexpected {type(error).__name__}: {error}. `tidemark --debug` before the command shows where; please report it.")
        return exits.FAILED


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status."""
    from infra.cli import commands  # noqa: F401  declares every command

    try:
        app(list(arguments), prog_name="tidemark")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else exits.FAILED
    return exits.OK
