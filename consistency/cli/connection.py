"""The options that say how to reach the cluster; every command that reads a cluster takes them all."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import click

from consistency.cli.options import CommandT, with_options
from consistency.cluster.settings import ENV_PREFIX, ConnectionSettings, GivenOptions, load_settings
from consistency.cluster.tls import TlsSettings, WeakTlsWarning

_OPTIONS = (
    click.option(
        "--hosts",
        metavar="A,B:PORT,...",
        help="Nodes to connect to first; they name the others. Default: CONSISTENCY_HOSTS, the files, 127.0.0.1.",
    ),
    click.option("--port", type=int, metavar="PORT", help="CQL port of hosts without one of their own (9042)."),
    click.option(
        "--config",
        metavar="FILE",
        help="TOML file. [connection] has hosts, port, username, password, tls, connect_timeout, protocol, and "
        "addresses for nodes that cannot be reached at their own. [repair] limits what --repair may do. [ledger] path "
        "says where runs are kept. Default: ~/.config/consistency/config.toml if it exists.",
    ),
    click.option(
        "--cqlshrc", metavar="FILE", help="cqlsh's own file: host, login, TLS. Default: ~/.cassandra/cqlshrc."
    ),
    click.option(
        "--username",
        metavar="USER",
        help="Role to log in as. The password comes from CONSISTENCY_PASSWORD, CONSISTENCY_PASSWORD_FILE or a file.",
    ),
    click.option(
        "--tls/--no-tls",
        default=None,
        help="Encrypt the connection or not, whatever the files say; the certificate must name the host.",
    ),
)


def connection_options(command: CommandT) -> CommandT:
    """Add the connection options; they arrive as `hosts`, `port`, `config`, `cqlshrc`, `username`, `tls`."""
    return with_options(command, _OPTIONS)


@dataclass(frozen=True, slots=True)
class Target:
    """How to connect, and the options that say so, for the commands that we suggest next."""

    settings: ConnectionSettings
    words: tuple[str, ...]
    config: str | None = None
    """The TOML file that was named, by option or environment."""


def take_connection(given: dict[str, Any]) -> Target:
    """Take the connection options out of a command's arguments."""
    values = {name: given.pop(name) for name in ("hosts", "port", "config", "cqlshrc", "username", "tls")}
    words: list[str] = []
    for name, value in values.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            words += [f"--{name}", str(value)]
    config = values["config"] or os.environ.get(ENV_PREFIX + "CONFIG")
    settings = load_settings(GivenOptions(**values))
    if isinstance(settings.tls, TlsSettings) and settings.tls.weakness:
        click.echo(f"warning: {settings.tls.weakness}", err=True)
        warnings.filterwarnings("ignore", category=WeakTlsWarning)  # the library warns in its own way
    return Target(settings, tuple(words), config)
