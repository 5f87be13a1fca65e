"""`consistency completion`: the script by which a shell completes commands, options and their choices."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "consistency"
_VARIABLE = "_CONSISTENCY_COMPLETE"
"""What click looks for: the shell sets it when it asks for completions."""
SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print a completion script for bash, zsh or fish.")
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
def completion(shell: str) -> int:
    """Print the script that completes commands and options in SHELL: bash, zsh or fish.

    The shell then asks this program at each TAB; nothing is asked of a cluster.

    \b
    Examples:
      consistency completion bash > ~/.consistency.bash
      consistency completion zsh > ~/.zfunc/_consistency
      consistency completion fish > ~/.config/fish/completions/consistency.fish

    bash: source that file in ~/.bashrc. zsh: have ~/.zfunc in fpath before compinit. fish: nothing more.
    """  # noqa: D301 - click wants the control character
    kind = get_completion_class(shell)
    if kind is None:
        msg = f"this version of click completes nothing in {shell}"
        raise click.UsageError(msg)
    made = kind(click.Command(PROGRAM), {}, PROGRAM, _VARIABLE)
    # Not `source()`, which runs a bash to see how old it is: the script may be for another machine.
    click.echo(made.source_template % made.source_vars(), nl=False)
    return 0
