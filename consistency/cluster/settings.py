"""How to reach the cluster: options over environment over a TOML file over cqlsh's own cqlshrc.

Secrets come from the environment or a file, never from an option: a command line is visible to every
user of the machine. A TOML file that holds a password must not be readable by others.
"""

from __future__ import annotations

import difflib
import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from consistency.cluster.cqlshrc import from_cqlshrc
from consistency.cluster.setting_values import (
    ENV_PREFIX,
    read_port,
    read_protocol,
    read_secret,
    read_timeout,
    require_no_misspelt,
)
from consistency.cluster.tls import TlsSettings, read_tls, tls_from_environ
from consistency.errors import SettingsError
from consistency.private import closing, is_open_to_others

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_PORT = 9042
DEFAULT_CONFIG = "~/.config/consistency/config.toml"
_TABLES = ("connection", "target", "ledger", "repair")
"""Every table of the TOML file; its commands share the file, so each of them knows all of them."""

Place = tuple[str, int]
"""Host (a name or an address) and port of a native transport."""


@dataclass(frozen=True, slots=True)
class Section:
    """Where the settings of one cluster come from: its table in the TOML file, its variables and its options.

    A section of its own takes part in no other: what the files say of one cluster is not believed of another.
    """

    table: str
    env: str
    options: str

    @property
    def no_tls(self) -> str:
        """The option that turns TLS off."""
        return "--no-tls" if self.is_first else f"--no-{self.table}-tls"

    @property
    def is_first(self) -> bool:
        """Whether it is the cluster that every command reads, which cqlsh's own file is about too."""
        return self.table == CONNECTION.table


CONNECTION = Section("connection", ENV_PREFIX, "--")
TARGET = Section("target", ENV_PREFIX + "TARGET_", "--target-")
"""The second cluster of the commands that take two."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """Everything a connection needs. Neither password nor login objects appear in its repr."""

    contact_points: tuple[tuple[str, int], ...] = (("127.0.0.1", DEFAULT_PORT),)
    """`(host, port)` of nodes to begin with; the others are found through them."""
    port: int = DEFAULT_PORT
    username: str | None = None
    """Whom to log in as; beside an own `auth_provider`, the role that it logs in as."""
    password: str | None = field(default=None, repr=False)
    tls: TlsSettings | ssl.SSLContext | None = None
    """TLS by files, or a context of your own; None is plain text."""
    connect_timeout_s: float = 10.0
    protocol: int | None = None
    """Version of the native protocol to speak; None leaves it to driver and server, who take the newest."""
    auth_provider: Any = field(default=None, repr=False)
    """A `cassandra.auth.AuthProvider` of your own (Kerberos, SigV4) in place of user and password."""
    addresses: Mapping[str, Place] = field(default_factory=dict)
    """Where nodes are reached whose own address is not reachable from here: by host id, `address:port` or address.

    A port of 0 stands for the node's own.
    """
    address_translator: Any = field(default=None, repr=False)
    """A `cassandra.policies.AddressTranslator` of your own: turns a node's own address into a reachable one."""
    cluster: Any = field(default=None, repr=False)
    """A `cassandra.cluster.Cluster` of your own, in place of all the other settings; it is left open."""
    section: Section = field(default=CONNECTION, repr=False)
    """Where the settings come from, for messages."""

    def __post_init__(self) -> None:
        if self.auth_provider is not None and self.password is not None:
            raise SettingsError("give either auth_provider or password: the provider logs in by itself")
        if self.cluster is not None and (self.auth_provider or self.password or self.tls or self.protocol):
            raise SettingsError("give login, TLS and protocol to the Cluster itself: beside one they have no effect")

    @property
    def hosts_text(self) -> str:
        """The contact points as typed, for messages."""
        if self.cluster is not None:
            return "the contact points of the Cluster given"
        return ",".join(f"{host}:{port}" for host, port in self.contact_points)

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context, or None for plain text."""
        return self.tls.context() if isinstance(self.tls, TlsSettings) else self.tls


@dataclass(frozen=True, slots=True)
class GivenOptions:
    """What the command line gave; None if it gave nothing."""

    hosts: str | None = None
    port: int | None = None
    config: str | None = None
    cqlshrc: str | None = None
    username: str | None = None
    tls: bool | None = None
    connect_timeout_s: float | None = None


def load_settings(
    given: GivenOptions, environ: Mapping[str, str] | None = None, section: Section = CONNECTION
) -> ConnectionSettings:
    """Merge all sources into one value; SettingsError names the source and the entry at fault."""
    environ = os.environ if environ is None else environ
    require_no_misspelt(environ)
    merged: dict[str, Any] = {}
    cqlshrc = given.cqlshrc or environ.get(section.env + "CQLSHRC")
    if cqlshrc or section.is_first:
        _lay_over(merged, from_cqlshrc(cqlshrc))
    path = given.config or environ.get(ENV_PREFIX + "CONFIG")
    _lay_over(merged, _from_toml(load_config(path).get(section.table, {}), path or DEFAULT_CONFIG, section))
    _lay_over(merged, _from_environ(environ, section))
    _lay_over(merged, _from_options(given, section))
    if "hosts" not in merged and not section.is_first:
        msg = (
            f"no {section.table} cluster is named: give {section.options}hosts, {section.env}HOSTS, or hosts in "
            f"[{section.table}] of the TOML file"
        )
        raise SettingsError(msg)
    return _build(merged, section)


def load_ledger_path(
    given: str | None, config: str | None = None, environ: Mapping[str, str] | None = None
) -> Path | None:
    """Return where the ledger is: the option, the environment, `[ledger] path` of the TOML file, or nowhere."""
    environ = os.environ if environ is None else environ
    require_no_misspelt(environ)
    path = config or environ.get(ENV_PREFIX + "CONFIG")
    section = load_config(path).get("ledger", {})
    named = section.get("path") if isinstance(section, dict) and set(section) <= {"path"} else 0
    if not isinstance(named, str | None):
        msg = f"--config {path or DEFAULT_CONFIG}: [ledger] must be a table with one entry, path, in quotes"
        raise SettingsError(msg)
    chosen = given or environ.get(ENV_PREFIX + "LEDGER") or named
    return Path(chosen).expanduser() if chosen else None


def _lay_over(merged: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Let one source win over those before it: entry by entry, the files of TLS too; `tls = true` keeps them."""
    before = merged.get("tls")
    merged.update(found)
    if isinstance(before, dict) and isinstance(found.get("tls"), dict):
        merged["tls"] = {**before, **found["tls"]}
    elif isinstance(before, dict) and found.get("tls") is True:
        merged["tls"] = before


def load_config(path: str | None) -> dict[str, Any]:
    """Read the TOML file, or the one in its usual place where it exists and none was named."""
    chosen = Path(path or DEFAULT_CONFIG).expanduser()
    if not path and not chosen.is_file():
        return {}
    try:
        text = chosen.read_text(encoding="utf-8")
        config: dict[str, Any] = tomllib.loads(text)
    except OSError as error:
        msg = f"--config {chosen}: {error.strerror}"
        raise SettingsError(msg) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"--config {chosen} is not TOML: {error}"
        raise SettingsError(msg) from None
    for name in config:
        if name not in _TABLES:  # left unread, a misspelt [connection] would have another cluster checked
            close = difflib.get_close_matches(name, _TABLES, n=1)
            hint = f"did you mean [{close[0]}]?" if close else f"it has {', '.join(f'[{each}]' for each in _TABLES)}"
            msg = f"--config {chosen}: there is no table [{name}]; {hint}"
            raise SettingsError(msg)
    holders = [config.get(section.table, {}) for section in (CONNECTION, TARGET)]
    held = any(isinstance(table, dict) and "password" in table for table in holders)
    if held and is_open_to_others(chosen.stat().st_mode):
        msg = f"--config {chosen} holds a password and others may read it; run: {closing(chosen)}"
        raise SettingsError(msg)
    return config


_TOML_KEYS = {
    "hosts": (str, list),
    "port": (int,),
    "username": (str,),
    "password": (str,),
    "connect_timeout": (int, float),
    "protocol": (int,),
    "tls": (bool, dict),
    "addresses": (dict,),
}


def _from_toml(entries: object, path: str, section: Section) -> dict[str, Any]:
    if not isinstance(entries, dict):
        msg = f"--config {path}: [{section.table}] must be a table"
        raise SettingsError(msg)
    out: dict[str, Any] = {}
    for key, value in entries.items():
        if key not in _TOML_KEYS:
            msg = f"--config {path}: [{section.table}] knows no {key!r}; it knows {', '.join(sorted(_TOML_KEYS))}"
            raise SettingsError(msg)
        if not isinstance(value, _TOML_KEYS[key]):
            msg = f"--config {path}: [{section.table}] {key} has the wrong type"
            raise SettingsError(msg)
        out[key] = ",".join(map(str, value)) if isinstance(value, list) else value
    if "port" in out:
        out["port"] = read_port(out["port"], f"--config {path}: [{section.table}] port")
    if "connect_timeout" in out:
        out["connect_timeout"] = read_timeout(
            out["connect_timeout"], f"--config {path}: [{section.table}] connect_timeout"
        )
    if "protocol" in out:
        out["protocol"] = read_protocol(out["protocol"], f"--config {path}: [{section.table}] protocol")
    if "hosts" in out:
        out["hosts_from"] = f"--config {path}: [{section.table}] hosts"
    return out


def _from_environ(environ: Mapping[str, str], section: Section) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key in ("HOSTS", "PORT", "USERNAME", "PASSWORD", "CONNECT_TIMEOUT", "PROTOCOL"):
        if environ.get(section.env + key):
            out[key.lower()] = environ[section.env + key]
    if "port" in out:
        out["port"] = read_port(out["port"], section.env + "PORT")
    if "connect_timeout" in out:
        out["connect_timeout"] = read_timeout(out["connect_timeout"], section.env + "CONNECT_TIMEOUT")
    if "protocol" in out:
        out["protocol"] = read_protocol(out["protocol"], section.env + "PROTOCOL")
    if "hosts" in out:
        out["hosts_from"] = section.env + "HOSTS"
    password_file = environ.get(section.env + "PASSWORD_FILE")
    if password_file:
        out["password"] = read_secret(section.env + "PASSWORD_FILE", Path(password_file))
    tls = tls_from_environ(environ, section.env + "TLS_")
    if tls:
        out["tls"] = tls
    return out


def _from_options(given: GivenOptions, section: Section) -> dict[str, Any]:
    pairs = {
        "hosts": given.hosts,
        "hosts_from": None if given.hosts is None else f"{section.options}hosts",
        "port": given.port,
        "username": given.username,
        "tls": given.tls,
        "connect_timeout": given.connect_timeout_s,
    }
    return {key: value for key, value in pairs.items() if value is not None}


def _build(merged: Mapping[str, Any], section: Section) -> ConnectionSettings:
    port = read_port(merged.get("port", DEFAULT_PORT), f"{section.options}port")
    hosts = parse_hosts(str(merged.get("hosts", "127.0.0.1")), port, merged.get("hosts_from", ""))
    username, password = merged.get("username"), merged.get("password")
    if username and password is None:
        msg = (
            f"user {username!r} has no password: set {section.env}PASSWORD or {section.env}PASSWORD_FILE, "
            f"or [{section.table}] password in the TOML file"
        )
        raise SettingsError(msg)
    if password is not None and not username:
        msg = f"a password is set but no user: give {section.options}username or {section.env}USERNAME"
        raise SettingsError(msg)
    settings = ConnectionSettings(hosts, port, username, password, read_tls(merged.get("tls")), section=section)
    if "connect_timeout" in merged:
        settings = replace(settings, connect_timeout_s=read_timeout(merged["connect_timeout"], "settings"))
    if "protocol" in merged:
        settings = replace(settings, protocol=merged["protocol"])
    if "addresses" in merged:
        settings = replace(settings, addresses=_addresses(merged["addresses"], section))
    return settings


def _addresses(entries: Mapping[str, object], section: Section) -> dict[str, Place]:
    """Read `"10.0.0.1" = "node1.example:9042"`: a node's host id or own address, and where it is reached."""
    out: dict[str, Place] = {}
    for name, text in entries.items():
        try:
            places = parse_hosts(str(text) if isinstance(text, str) else "", 0)
        except SettingsError:
            places = ()
        if len(places) != 1:
            msg = f"[{section.table}.addresses] {name!r}: {text!r} is not one HOST or HOST:PORT in quotes"
            raise SettingsError(msg)
        out[name.lower()] = places[0]
    return out


def parse_hosts(text: str, port: int, option: str = "--hosts") -> tuple[tuple[str, int], ...]:
    """Read `A,B:9043,[::1]:9042` into `(host, port)` pairs."""
    out: list[tuple[str, int]] = []
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        if part.startswith("["):
            host, end, rest = part[1:].partition("]")
            own = rest.removeprefix(":")
            if not end:
                host = ""
        elif part.count(":") == 1:
            host, _, own = part.partition(":")
        else:
            host, own = part, ""
        if not host:
            msg = f"{option} {text!r}: {part!r} has no host"
            raise SettingsError(msg)
        out.append((host, read_port(own, f"{option} {part!r}") if own else port))
    if not out:
        msg = f"{option} names no host; give one or more, such as 10.0.0.1,10.0.0.2"
        raise SettingsError(msg)
    return tuple(out)
