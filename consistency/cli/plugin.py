"""A command that can be a monitoring plugin: with --nagios it always ends with one line and exit code 0 to 3."""

from __future__ import annotations

from typing import Any

import click

from consistency.cli.show.terminal.plugin import PluginResult, could_not_run, refused

FLAG = "--nagios"


class PluginCommand(click.Command):
    """A command with the option --nagios; without the option it is an ordinary command."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments; a plugin with wrong arguments is UNKNOWN, because exit code 2 would say CRITICAL."""
        asked = FLAG in args
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if not asked:
                raise
            result = refused(error.format_message())
        leave(result)
        raise click.exceptions.Exit(int(result.state))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error is UNKNOWN."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params.get("nagios"):
                return leave(could_not_run(error))
            raise


def leave(result: PluginResult) -> int:
    """Print the line; return the exit code."""
    click.echo(result.line)
    return int(result.state)
