"""The application: its global options, how a command is declared, and how an error leaves it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape

from domain.errors import TidemarkError
from infra.cli import exits, output
from infra.cli.context import chosen
from infra.composition import NotReady

EPILOG = "\n\n".join(["Exit statuses:", *(f"{status:>3}  {meaning}" for status, meaning in exits.MEANINGS.items())])

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


def group(name: str, help_: str) -> typer.Typer:
    """A group of commands below the application."""
    sub = typer.Typer(help=help_, no_args_is_help=True, rich_markup_mode="rich")
    app.add_typer(sub, name=name)
    return sub


Command = TypeVar("Command", bound=Callable[..., int | None])


def command(name: str, *, of: typer.Typer = app, examples: Sequence[str]) -> Callable[[Command], Command]:
    """Declare a command. It returns its exit status (none is 0); its errors become one sentence."""

    def declare(function: Command) -> Command:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            raise typer.Exit(guard(lambda: function(*args, **kwargs)))

        epilog = "\n\n".join(["Examples:", *(f"  [cyan]{escape(example)}[/]" for example in examples)])
        of.command(name, epilog=epilog)(guarded)
        return function

    return declare


def guard(work: Callable[[], int | None]) -> int:
    """Do a command's work and return its exit status: an error of ours is one sentence, Ctrl-C ends quietly."""
    from infra.logs import configure

    configure("debug" if chosen.is_debug else "warning")
    try:
        return work() or exits.OK
    except KeyboardInterrupt:
        output.say("Stopped.")
        return exits.STOPPED
    except (TidemarkError, NotReady) as error:
        if chosen.is_debug:
            output.errors.print_exception()
        output.fail(error)
        return exits.status_of(error)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status."""
    from infra.cli import commands  # noqa: F401  declares every command

    try:
        app(list(arguments), prog_name="tidemark")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else exits.FAILED
    return exits.OK
