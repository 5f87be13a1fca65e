"""What cqlsh's own file says of the connection: hosts, login and TLS."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Any

from consistency.cluster.setting_values import read_port
from consistency.cluster.tls import tls_from_cqlshrc
from consistency.errors import SettingsError


def from_cqlshrc(path: str | None) -> dict[str, Any]:
    """Return what a file of cqlsh says, or the one in its usual place where it exists and none was named."""
    chosen = Path(path).expanduser() if path else Path("~/.cassandra/cqlshrc").expanduser()
    if not path and not chosen.is_file():
        return {}
    parser = _ini(chosen, "--cqlshrc")
    out: dict[str, Any] = {}
    if parser.has_option("connection", "hostname"):
        out |= {"hosts": parser.get("connection", "hostname"), "hosts_from": f"--cqlshrc {chosen} hostname"}
    if parser.has_option("connection", "port"):
        out["port"] = read_port(parser.get("connection", "port"), f"--cqlshrc {chosen} port")
    out.update(_cqlsh_credentials(parser))
    try:
        encrypted = parser.getboolean("connection", "ssl", fallback=False)
    except ValueError:
        msg = f"--cqlshrc {chosen} ssl: {parser.get('connection', 'ssl')!r} is neither true nor false"
        raise SettingsError(msg) from None
    if encrypted:
        out["tls"] = tls_from_cqlshrc(parser)
    return out


def _cqlsh_credentials(parser: configparser.ConfigParser) -> dict[str, str]:
    out: dict[str, str] = {}
    for key in ("username", "password"):
        if parser.has_option("authentication", key):
            out[key] = parser.get("authentication", key)
    named = parser.get("authentication", "credentials", fallback=None)
    if named:
        credentials = _ini(Path(named).expanduser(), "cqlshrc credentials")
        for section in credentials.sections():
            for key in ("username", "password"):
                if credentials.has_option(section, key):
                    out[key] = credentials.get(section, key)
    return out


def _ini(path: Path, source: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with path.open(encoding="utf-8") as lines:
            parser.read_file(lines)
    except OSError as error:
        msg = f"{source} {path}: {error.strerror}"
        raise SettingsError(msg) from None
    except (configparser.Error, UnicodeDecodeError):
        # The parser's own message quotes the line, which may be the password.
        msg = f"{source} {path} is not an ini file that cqlsh would read"
        raise SettingsError(msg) from None
    return parser
