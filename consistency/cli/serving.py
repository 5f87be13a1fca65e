"""What a watch serves, as options: where, the live page's token, and the reports that the page links to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from consistency.cluster.setting_values import ENV_PREFIX, read_secret
from consistency.errors import UsageError
from consistency.watching.page_access import DEFAULT_LISTEN

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
_OPTION = "--listen-token-file"

_OPTIONS = (
    click.option(
        "--listen",
        default=DEFAULT_LISTEN,
        show_default=True,
        metavar="HOST:PORT",
        help="Serve a live page at /, and /metrics and /healthz without a login; use an address that only your "
        "monitoring reaches. On any other than a loopback address the page needs a token.",
    ),
    click.option(
        _OPTION,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Show the live page only with the token in FILE, as password with any user, or as bearer. Default: "
        f"{ENV_PREFIX}LISTEN_TOKEN or _TOKEN_FILE, else the page is for this machine only.",
    ),
    click.option(
        "--html-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Keep the HTML reports of the newest 200 visits in this directory, without keys; the live page has links.",
    ),
)


def serving_options(command: CommandT) -> CommandT:
    """Add them to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_token(given: dict[str, Any]) -> str:
    """Return the live page's token, empty if there is none."""
    path = given["listen_token_file"]
    if path is not None:
        token = read_secret(_OPTION, path)
    else:
        token = secret_of("LISTEN_TOKEN") or ""
        if not token:
            return ""
    if not token:
        msg = f"{_OPTION} {path}: is empty; make a token: openssl rand -hex 32"
        raise UsageError(msg)
    return token


def secret_of(name: str) -> str | None:
    """Return a secret of the environment, or of the file that the environment names: everyone sees a command line."""
    path = os.environ.get(f"{ENV_PREFIX}{name}_FILE")
    if not path:
        return os.environ.get(ENV_PREFIX + name)
    return read_secret(f"{ENV_PREFIX}{name}_FILE", Path(path))
