"""How shared options are added to a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def with_options(command: CommandT, options: Sequence[Callable[[CommandT], CommandT]]) -> CommandT:
    """Add options to a command; its help lists them in this order."""
    for option in reversed(options):
        command = option(command)
    return command
