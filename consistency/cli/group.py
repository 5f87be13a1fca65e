"""The group of all commands: loads a command when it is used, prints an error as one line, sets the exit code."""

from __future__ import annotations

import difflib
import errno
import importlib
import importlib.util
import os
import re
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TextIO

import click

from consistency.cli.signals import as_interrupts
from consistency.errors import ConsistencyError
from consistency.model.cqltext import visible
from consistency.results.verdict import ExitCode
from consistency.spreading.nursery import begin_early

_EXTRAS = {"sandbox": "sandbox", "demo": "sandbox"}
"""Which commands need an extra to be installed."""


_NEVER_IN_ARGV = (
    "no option takes a password, which others could read: set CONSISTENCY_PASSWORD, or name a file of mode 0600 in "
    "CONSISTENCY_PASSWORD_FILE"
)


_WHOLE_NUMBER = re.compile(r"is not a valid integer(?: range)?\b")
"""The words of click for a text where a whole number is wanted."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def __init__(self, *args: Any, commands_at: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands_at = dict(commands_at or {})

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return the commands whose modules exist, and those defined here, in the order in which they are used."""
        present = [name for name, place in self._commands_at.items() if _exists(place.partition(":")[0])]
        return [*present, *(name for name in self.commands if name not in self._commands_at)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None for an unknown name."""
        place = self._commands_at.get(cmd_name)
        if place is None or not _exists(place.partition(":")[0]):
            return super().get_command(ctx, cmd_name)
        module, _, attribute = place.partition(":")
        try:
            found: click.Command = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            return _stub(cmd_name, _missing(cmd_name, error))
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command; for an unknown name suggest a similar one."""
        name = args[0] if args else ""
        if args and not name.startswith("-") and self.get_command(ctx, name) is None:
            close = difflib.get_close_matches(name, self.list_commands(ctx), n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"there is no command {name!r}{hint}")
        return super().resolve_command(ctx, args)

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command and exit with its code; every error is one line on stderr."""
        extra["standalone_mode"] = False
        extra["obj"] = args is None  # whether this process is ours alone
        if args is None and any(word.partition("=")[0] == "--workers" for word in sys.argv[1:]):
            begin_early()
        _replace_closed_streams()
        for stream in (sys.stdout, sys.stderr):
            _escape_unknown_characters(stream)
        with as_interrupts():
            code = _flushed(_guarded(lambda: super(LazyGroup, self).main(args, prog_name, **extra)))
        if args is None and _threads_left():
            # The driver's threads may wait for a silent node; do not wait for them.
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os._exit(code)
        sys.exit(code)


def _threads_left() -> bool:
    """Whether Python would wait for a running thread."""
    return any(t.is_alive() and not t.daemon and t is not threading.main_thread() for t in threading.enumerate())


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError as error:
        # Looking for a.b imports a: if a exists and lacks a dependency, the command exists too.
        return error.name is not None and error.name not in (module, module.partition(".")[0])


def _missing(command: str, error: ImportError) -> str:
    extra = _EXTRAS.get(command)
    if extra is None:
        return f"'{command}' cannot be loaded: {error}"
    return lacks_packages(command, error, extra)


def lacks_packages(command: str, error: ImportError, extra: str | None = None) -> str:
    """Say which extra has the packages that a command needs."""
    extra = extra or command
    where = f"pip install 'cassandra-consistency[{extra}]', in a clone '.[{extra}]'"
    return f"'{command}' needs more packages ({error.name}): {where}"


def _stub(name: str, message: str) -> click.Command:
    """Return a command that says why the real one cannot run, whatever its arguments."""

    def refuse(**_: Any) -> NoReturn:
        raise ConsistencyError(message)

    settings = {"ignore_unknown_options": True, "help_option_names": []}
    anything = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(
        name, context_settings=settings, callback=refuse, params=[anything], help=f"Not here: {message}."
    )


def _guarded(run: Any) -> int:
    """Run a command; return its exit code, and print an error as one line."""
    try:
        result = run()
    except click.ClickException as error:
        return _misused(error)
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", ExitCode.INTERRUPTED, label="")
    except ConsistencyError as error:
        return _say(str(error), error.exit_code)
    except BrokenPipeError:
        return ExitCode.COULD_NOT_RUN
    except Exception as error:  # noqa: BLE001 - the last line of defence: an operator gets a line, not a traceback
        return _internal(error)
    return result if isinstance(result, int) else 0


def exit_code_of(error: BaseException) -> int:
    """Return the exit code for an error."""
    if isinstance(error, ConsistencyError):
        return int(error.exit_code)
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.USAGE if isinstance(error, click.ClickException) else ExitCode.COULD_NOT_RUN)


def _misused(error: click.ClickException) -> int:
    """Say what is wrong with the command line; a group without a command prints its help."""
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # click 8.2 and later
        click.echo(message, err=True)
        return int(ExitCode.USAGE)
    if isinstance(error, click.NoSuchOption) and "pass" in error.option_name:
        return _say(f"{error.option_name}: {_NEVER_IN_ARGV}", ExitCode.USAGE)
    message = _WHOLE_NUMBER.sub("is not a whole number", message)
    context = getattr(error, "ctx", None)
    hint = f"; see: {context.command_path} --help" if context is not None else ""
    return _say(message.rstrip(".") + hint, ExitCode.USAGE)


def _internal(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        return _say("standard output: No space left on device; send it to where there is room", ExitCode.COULD_NOT_RUN)
    if os.environ.get("CONSISTENCY_DEBUG"):
        traceback.print_exception(error)
    detail = f"{type(error).__name__}: {error}".rstrip(": ")
    hint = "run with CONSISTENCY_DEBUG=1 for the traceback"
    return _say(f"{detail[:300]}; {hint}", ExitCode.COULD_NOT_RUN, label="internal error: ")


def _say(message: str, code: int, label: str = "error: ") -> int:
    line = " ".join(visible(part) for part in message.split())
    with suppress(OSError):  # nobody reads stderr: the exit code still tells
        click.echo(f"{label}{line}", err=True)
    return int(code)


def _replace_closed_streams() -> None:
    """Open a sink for output that the caller closed (`>&-`), so that the exit code is still right."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - it lasts as long as the process


def _escape_unknown_characters(stream: TextIO | Any) -> None:
    """Write characters that the terminal's encoding lacks as escapes instead of failing."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def _flushed(code: int) -> int:
    """Flush stdout now, so that a reader that has gone causes no traceback at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a descriptor is wanted
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return code
