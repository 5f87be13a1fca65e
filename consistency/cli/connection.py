"""The options that say how to reach the cluster; every command that reads a cluster takes them all."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from typing import Any

import click

from consistency.cli.options import CommandT, with_options
from consistency.cluster.setting_values import ENV_PREFIX
from consistency.cluster.settings import (
    CONNECTION,
    TARGET,
    ConnectionSettings,
    GivenOptions,
    Section,
    load_settings,
)
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


_TARGET_OPTIONS = (
    click.option(
        "--target-hosts",
        metavar="A,B:PORT,...",
        help="Nodes of the target cluster to connect to first. Default: CONSISTENCY_TARGET_HOSTS, or hosts in [target] "
        "of the TOML file, which has the same entries as [connection]. Nothing of the source's login is used here.",
    ),
    click.option("--target-port", type=int, metavar="PORT", help="CQL port of target hosts without their own (9042)."),
    click.option("--target-cqlshrc", metavar="FILE", help="A file of cqlsh for the target: host, login, TLS."),
    click.option(
        "--target-username",
        metavar="USER",
        help="Role to log in as at the target. The password comes from CONSISTENCY_TARGET_PASSWORD, "
        "CONSISTENCY_TARGET_PASSWORD_FILE or a file.",
    ),
    click.option(
        "--target-tls/--no-target-tls", default=None, help="Encrypt the connection to the target or not, as --tls does."
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
    given: GivenOptions = field(default_factory=GivenOptions)
    """The options themselves: no password is among them."""


def target_options(command: CommandT) -> CommandT:
    """Add the options of the target cluster, for a command that has the connection options too."""
    return with_options(command, _TARGET_OPTIONS)


def take_connection(given: dict[str, Any]) -> Target:
    """Take the connection options out of a command's arguments."""
    values = {name: given.pop(name) for name in ("hosts", "port", "config", "cqlshrc", "username", "tls")}
    config = values["config"] or os.environ.get(ENV_PREFIX + "CONFIG")
    options = GivenOptions(**values)
    return Target(_loaded(options, CONNECTION), _words(values, ""), config, options)


def take_both(given: dict[str, Any]) -> tuple[Target, Target]:
    """Take the options of source and target out of a command's arguments; they share the TOML file."""
    config = given["config"]
    source = take_connection(given)
    values = {name: given.pop(f"target_{name}") for name in ("hosts", "port", "cqlshrc", "username", "tls")}
    options = GivenOptions(config=config, **values)
    return source, Target(_loaded(options, TARGET), _words(values, "target-"), source.config, options)


def _loaded(given: GivenOptions, section: Section) -> ConnectionSettings:
    settings = load_settings(given, section=section)
    if isinstance(settings.tls, TlsSettings) and settings.tls.weakness:
        where = "" if section.is_first else f"{section.table}: "
        click.echo(f"warning: {where}{settings.tls.weakness}", err=True)
        warnings.filterwarnings("ignore", category=WeakTlsWarning)  # the library warns in its own way
    return settings


def _words(values: dict[str, Any], prefix: str) -> tuple[str, ...]:
    """Return the options that were given, as they were given."""
    words: list[str] = []
    for name, value in values.items():
        if isinstance(value, bool):
            words.append(f"--{prefix}{name}" if value else f"--no-{prefix}{name}")
        elif value is not None:
            words += [f"--{prefix}{name}", str(value)]
    return tuple(words)
