"""Which stack a command speaks to, and whether the servers that it needs are there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from infra.cli import output

# The rest is imported where it is used: `--help` and a mistyped option must answer at once.
if TYPE_CHECKING:
    from infra.composition import Composition
    from infra.settings import Settings
    from infra.stack import Stack


@dataclass
class Globals:
    """Options that stand before the command."""

    stack: str | None = None
    is_debug: bool = False


chosen = Globals()
"""Set once by the application before a command runs."""


class Context:
    """Settings, stack and composition of one command, each made when first asked for."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._given = settings

    @cached_property
    def given(self) -> Settings:
        """The settings as the user gave them, of the stack in use.

        Raises:
            SettingsError: a setting is wrong.
        """
        if self._given is not None:
            return self._given
        from infra.settings import load_settings

        if chosen.stack is not None:
            return load_settings(stack=chosen.stack)
        settings = load_settings()
        if "stack" in settings.model_fields_set:
            return settings
        return settings.model_copy(update={"stack": _in_use(settings)})

    @cached_property
    def stack(self) -> Stack:
        """The local stack in use.

        Raises:
            StateTooNew: a newer Tidemark has written its state.
        """
        from infra.stack import Stack, state_version

        state_version.check(self.given.stack_dir)
        return Stack.of(self.given)

    @cached_property
    def settings(self) -> Settings:
        """The settings, with the addresses and credentials of the local servers filled in."""
        return self.stack.settings()

    @cached_property
    def composition(self) -> Composition:
        """Parts on demand."""
        from infra.composition import Composition

        return Composition(self.settings)

    def need(self, *parts: str) -> Composition:
        """The composition, after these servers were found ready; the user's own servers are not asked here.

        Raises:
            PartDown: a local server is not ready; the message says what to do.
        """
        from infra.stack import PartDown

        local = set(self.stack.local_parts())
        wanted = [part for part in parts if part in local]
        if wanted and not self.stack.is_up():
            raise PartDown(wanted[0], f"the local stack {self.given.stack!r} is not running: start it with {up_of(self.given.stack)}")
        self.stack.require(*wanted)
        return self.composition


def up_of(stack: str) -> str:
    """The command that starts a stack, as a person types it."""
    from infra.settings import DEFAULT_STACK

    return "`tidemark up`" if stack == DEFAULT_STACK else f"`tidemark --stack {stack} up`"


def _in_use(settings: Settings) -> str:
    """The default stack; where it does not run and just one other does, that one."""
    from infra.settings import DEFAULT_STACK
    from infra.stack import Stack
    from infra.stack.stack import stacks

    if settings.stack_dir.is_dir() and Stack.of(settings).is_up():
        return DEFAULT_STACK
    running = [folder.name for folder in stacks(settings.state_dir) if Stack(folder, settings).is_up()]
    if len(running) == 1:
        return running[0]
    if len(running) > 1:
        output.say(f"[yellow]These stacks run: {', '.join(running)}. Name one with `tidemark --stack NAME`.[/]")
    return settings.stack
