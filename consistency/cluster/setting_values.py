"""Single entries of the settings, each read or refused with the name of its source; and misspelt variables."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path

from consistency.errors import SettingsError

ENV_PREFIX = "CONSISTENCY_"
_OF_A_CLUSTER = (
    *("HOSTS", "PORT", "USERNAME", "PASSWORD", "PASSWORD_FILE", "CONNECT_TIMEOUT", "PROTOCOL", "CQLSHRC"),
    *("TLS_CA_FILE", "TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CHECK_HOSTNAME"),
)
_OF_ALL = (
    *("CONFIG", "LEDGER", "RUN", "LOG", "DEBUG", "CACHE", "JAVA_HOME"),
    *("LISTEN_TOKEN", "LISTEN_TOKEN_FILE", "WEBHOOK", "WEBHOOK_SECRET", "WEBHOOK_SECRET_FILE"),
)
_KNOWN = tuple(ENV_PREFIX + name for name in (*_OF_A_CLUSTER, *(f"TARGET_{name}" for name in _OF_A_CLUSTER), *_OF_ALL))
_ALIKE = 0.93
"""One letter more, less or other. CONSISTENCY_LEVEL, which other programs read, is further from CONSISTENCY_LEDGER."""
_LONGEST_WAIT_S = 86400.0


def require_no_misspelt(environ: Mapping[str, str]) -> None:
    """Refuse a variable that is nearly one of ours: unread, another cluster is checked, or a login sent without TLS."""
    for name, value in environ.items():
        if value and name.startswith(ENV_PREFIX) and name not in _KNOWN:
            close = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=_ALIKE)
            if close:
                msg = f"{name} is set, and nothing reads it; did you mean {close[0]}?"
                raise SettingsError(msg)


def read_secret(told_by: str, path: Path) -> str:
    """Return the text of a file without its end of line."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        msg = f"{told_by} {path}: {reason}"
        raise SettingsError(msg) from None


def read_port(value: object, source: str) -> int:
    """Return the number of a port."""
    try:
        port = int(str(value))
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        msg = f"{source}: {value!r} is not a port; it must be a number from 1 to 65535"
        raise SettingsError(msg)
    return port


def read_timeout(value: object, source: str) -> float:
    """Return how long to wait for a connection; longer than a day is more than sockets can count."""
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST_WAIT_S:
        msg = f"{source}: connect timeout {value!r} is not a number of seconds above 0, and up to a day"
        raise SettingsError(msg)
    return seconds


def read_protocol(value: object, source: str) -> int:
    """Return the version of the native protocol."""
    if str(value) not in ("4", "5"):
        msg = f"{source}: {value!r} is not a version of the native protocol that can be used here: 4 or 5"
        raise SettingsError(msg)
    return int(str(value))
