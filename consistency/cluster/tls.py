"""Client TLS: whom to trust, what is said where less is verified, and the error of a certificate for somebody else."""

from __future__ import annotations

import configparser
import re
import socket
import ssl
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consistency.errors import SettingsError
from consistency.model.cqltext import some_of

_LOOK_S = 5.0
_MOST_NAMED = 8
_OTHER_NAME = re.compile(r"mismatch, certificate is not valid for '([^']+)'", re.IGNORECASE)
"""The words of Python's ssl module, of a host name and of an address."""
_KEYS = {"ca_file": str, "cert_file": str, "key_file": str, "verify": bool, "check_hostname": bool}


class WeakTlsWarning(UserWarning):
    """TLS was told to verify less than it could."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Client TLS: the authority to trust, and a certificate where the server wants one.

    The certificate of every node must name the address, or the name, that it is connected to by.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True
    check_hostname: bool = True

    @property
    def weakness(self) -> str:
        """What others could do as this verifies too little, in one line; empty if all is verified."""
        if not self.verify:
            return "TLS verifies no certificate (verify = false): others on the network can read the login and data"
        if not self.check_hostname:
            return (
                "TLS verifies no host name (check_hostname = false): whoever has a certificate of a trusted authority "
                "can pass for a node"
            )
        return ""

    def context(self) -> ssl.SSLContext:
        """Build the context, or raise SettingsError naming the file at fault; WeakTlsWarning if it is weak."""
        if self.weakness:
            warnings.warn(self.weakness, WeakTlsWarning, stacklevel=2)
        return self._context(check_hostname=self.check_hostname and self.verify)

    def _context(self, *, check_hostname: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = check_hostname
        context.verify_mode = ssl.CERT_REQUIRED if self.verify else ssl.CERT_NONE
        try:
            if self.ca_file:
                context.load_verify_locations(self.ca_file)
            elif self.verify:
                context.load_default_certs()
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            named = ", ".join(f for f in (self.ca_file, self.cert_file, self.key_file) if f)
            msg = f"TLS files cannot be used ({named}): {error}; they must be PEM and readable"
            raise SettingsError(msg) from None
        return context

    def names_of(self, host: str, port: int, timeout_s: float = _LOOK_S) -> tuple[str, ...]:
        """Connect once and return the names and addresses that a node's trusted certificate is for; none if unknown."""
        context = self._context(check_hostname=False)
        try:
            with socket.create_connection((host, port), timeout=timeout_s) as plain, context.wrap_socket(plain) as node:
                held = node.getpeercert() or {}
        except OSError:
            return ()
        named = tuple(str(entry[1]) for entry in held.get("subjectAltName", ()) if len(entry) == 2)
        subject: Any = held.get("subject", ())
        return named or tuple(value for part in subject for key, value in part if key == "commonName")


def unnamed_host(error: object) -> str:
    """Return the name or address that the certificate does not hold, by what TLS complained of; empty for the rest."""
    found = _OTHER_NAME.search(str(error))
    return found[1] if found else ""


def wrong_certificate(tls: TlsSettings | ssl.SSLContext | None, host: str, port: int, table: str) -> str:
    """Say in one line what the certificate of a node is for, as it is not for `host`, and the ways out.

    `table` of the TOML file says how its cluster is reached.
    """
    wanted = f"have it name {host}"
    if not isinstance(tls, TlsSettings):
        return f"{host}:{port} shows a certificate that is not for {host}: {wanted}, or connect by a name that it has"
    names = tls.names_of(host, port)
    shown = some_of(names, _MOST_NAMED)
    return (
        f"{host}:{port} shows a certificate for {shown or 'other names'}, not for {host}: connect by a name that it "
        f"has, {wanted} (subjectAltName), or set check_hostname = false in [{table}] tls, which lets any node of "
        "its authority answer"
    )


def tls_from_environ(environ: Mapping[str, str], prefix: str) -> dict[str, Any]:
    """Return the TLS entries of the environment, of the variables that begin so."""
    keys = {"CA_FILE": "ca_file", "CERT_FILE": "cert_file", "KEY_FILE": "key_file"}
    found: dict[str, Any] = {name: environ[prefix + key] for key, name in keys.items() if environ.get(prefix + key)}
    check = environ.get(prefix + "CHECK_HOSTNAME")
    if check:
        if check not in ("true", "false"):
            msg = f"{prefix}CHECK_HOSTNAME must be true or false, in small letters"
            raise SettingsError(msg)
        found["check_hostname"] = check == "true"
    return found


def tls_from_cqlshrc(parser: configparser.ConfigParser) -> dict[str, Any]:
    """Return the TLS entries of cqlsh's file; as for cqlsh, `validate` is on unless it is false.

    cqlsh never compares host names, and its file has no entry that says so: we compare them unless we are told
    ourselves not to.
    """
    files = {"ca_file": "certfile", "cert_file": "usercert", "key_file": "userkey"}
    found: dict[str, Any] = {
        key: parser.get("ssl", name) for key, name in files.items() if parser.has_option("ssl", name)
    }
    return {**found, "verify": parser.get("ssl", "validate", fallback="true").strip().lower() != "false"}


def read_tls(value: Any) -> TlsSettings | None:
    """Take `true`, `false` or a table of entries; SettingsError names the entry at fault."""
    if value is None or value is False:
        return None
    if value is True:
        return TlsSettings()
    entries: dict[str, Any] = {}
    for key, entry in value.items():
        if key not in _KEYS:
            msg = f"tls knows no {key!r}; it knows {', '.join(sorted(_KEYS))}"
            raise SettingsError(msg)
        if not isinstance(entry, _KEYS[key]):
            wanted = "true or false, without quotes" if _KEYS[key] is bool else "a path in quotes"
            msg = f"tls {key} must be {wanted}"
            raise SettingsError(msg)
        entries[key] = str(Path(entry).expanduser()) if isinstance(entry, str) else entry
    return TlsSettings(**entries)
