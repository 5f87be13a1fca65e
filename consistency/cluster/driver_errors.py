"""One line with the remedy for each failed login, connection or read; it needs no driver."""

from __future__ import annotations

import re

from consistency.cluster import levels
from consistency.cluster.settings import ConnectionSettings
from consistency.cluster.tls import unnamed_host, wrong_certificate
from consistency.errors import (
    ConnectError,
    LevelForbidden,
    PageTooLarge,
    ReplicaError,
    ReplicaForbidden,
    ReplicaRefused,
    TooMuchToScan,
)
from consistency.model.cqltype import quote_identifier
from consistency.model.ring import Node

_TOO_MANY_TOMBSTONES, _READ_TOO_LARGE = 1, 4
_INDEX_TOO_LARGE = -1
"""A code of our own, because servers give a coordinator one code for a large read and a large index."""
_CORRUPT = -2
"""Another one, because servers have no code for it: only a node's own words tell, so not those of a coordinator."""
_PAGE_TOO_LARGE = re.compile(r"page size \d+ exceeds fail threshold of (\d+)")
"""The words of the guardrail page_size_fail_threshold."""
_NO_PERMISSION = re.compile(r"User (\S+) has no ([A-Z]+) permission on <(keyspace|table) ([\w.]+)>")
_OWN_WORDS = {
    "TombstoneOverwhelmingException": _TOO_MANY_TOMBSTONES,
    "tombstones during query": _TOO_MANY_TOMBSTONES,
    "LocalReadSizeTooLargeException": _READ_TOO_LARGE,
    "but max allowed is": _READ_TOO_LARGE,
    "RowIndexEntryReadSizeTooLargeException": _INDEX_TOO_LARGE,
    "CorruptSSTableException": _CORRUPT,
    "CorruptBlockException": _CORRUPT,
}
"""The text of a server's exception, and the failure code of a read that it stands for."""
_LAST_ERROR = re.compile(r"^\[Errno -?\d+\] (?:Tried connecting to .*\. Last error: )?")
_LAST_HOST = re.compile(r"^errors=(.*), last_host=\S*$")
_NOT_TLS = re.compile("WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE")
"""The words of OpenSSL for an answer that is no TLS."""
_OTHER_PROTOCOL = re.compile(r"does not support protocol version \d+")
NO_SUCH_NAME = ("Name or service not known", "nodename nor servname", "No address associated with hostname")
"""The words of the systems' resolvers."""


def connect_error(settings: ConnectionSettings, reason: object, *, login: bool, unknown_host: bool) -> ConnectError:
    """Return one line for the driver's nested error: a refused login, an unknown host, or no answer."""
    hosts, section = settings.hosts_text, settings.section
    if login:
        return ConnectError(_login_refused(settings))
    if misnamed := unnamed_host(reason):
        port = next((port for host, port in settings.contact_points if host == misnamed), settings.port)
        return ConnectError(wrong_certificate(settings.tls, misnamed, port, section.table))
    text = first_line(reason)
    if unknown_host or any(words in text for words in NO_SUCH_NAME):
        return ConnectError(f"{section.options}hosts {hosts}: no such host name")
    if trouble := _tls_trouble(settings, text):
        return ConnectError(trouble)
    if level := levels.sentence(str(reason)):
        return ConnectError(f"{hosts}: {level}")
    hint = "is Cassandra running there, and is it the native (CQL) port?"
    if any(word in text for word in ("closed", "reset")):
        limit = "native_transport_max_concurrent_connections_per_ip"
        hint = f"is it the native (CQL) port, and does it allow more connections from our address ({limit})?"
    if any(word in text for word in ("closed", "reset", "Protocol", "protocol", "version", "EOF", "alert")):
        tls = f"{section.options}tls, and {section.env}TLS_CA_FILE or [{section.table}] tls with your authority"
        wanted = "ask for another TLS certificate of ours?" if settings.tls is not None else f"want TLS ({tls})?"
        hint += f" Does it {wanted}"
    return ConnectError(f"no node answers at {hosts}: {_in_short(text)}; {hint}")


def _tls_trouble(settings: ConnectionSettings, text: str) -> str:
    """Say what is wrong with TLS; nothing if something else is."""
    hosts, section = settings.hosts_text, settings.section
    if "CERTIFICATE_VERIFY_FAILED" in text:
        trust = f"name it with {section.env}TLS_CA_FILE, or ca_file in [{section.table}] tls"
        return f"the certificate of {hosts} is of an authority that is not trusted here: {trust}"
    if settings.tls is not None and _NOT_TLS.search(text):
        return f"{hosts} does not speak TLS: is it the native (CQL) port? Without TLS: {section.no_tls}"
    return ""


def _in_short(text: str) -> str:
    """Return a connection's error without the wrapping of the libraries."""
    if _OTHER_PROTOCOL.search(text):
        return "something answers that does not speak Cassandra's native protocol"
    return _LAST_HOST.sub(r"\1", _LAST_ERROR.sub("", text))


def _login_refused(settings: ConnectionSettings) -> str:
    hosts = settings.hosts_text
    if settings.cluster is not None:
        return f"{hosts} refused the login, or ask for one: give the Cluster an auth_provider that they accept"
    if settings.auth_provider is not None:
        kind = type(settings.auth_provider).__name__
        return f"{hosts} refused the login of the {kind} given: does it fit the server's authenticator?"
    if settings.username is None:
        env = settings.section.env
        return f"{hosts} asks for a login: set {env}USERNAME and {env}PASSWORD, or give a cqlshrc"
    return f"{hosts} refused the login of user {settings.username!r}: check the password"


def first_line(error: object) -> str:
    """Return the first line of an error's text, cut if it is long, or its type if it has no text."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def forbidden(node: Node, error: object) -> ReplicaForbidden:
    """Return the error for a request that our role has no right to, with the GRANT that gives it the right."""
    found = _NO_PERMISSION.search(str(error))
    if not found:
        return ReplicaForbidden(first_line(error), node)
    role, right, kind, name = found.groups()
    of = ".".join(quote_identifier(part) for part in name.split("."))
    grant = f"GRANT {right} ON {kind.upper()} {of} TO {quote_identifier(role)}"
    return ReplicaForbidden(f"role {role!r} has no {right} permission on {name}: {grant}", node)


def refusal(node: Node, error: object) -> ReplicaRefused:
    """Return the error for a request that the server calls invalid, or that a guardrail forbids."""
    if level := levels.sentence(str(error)):
        return LevelForbidden(level, node)
    said = first_line(error)
    found = _PAGE_TOO_LARGE.search(str(error))
    return PageTooLarge(said, max(1, int(found[1])), node) if found else ReplicaRefused(said, node)


def codes_in(text: str) -> set[int]:
    """Return the failure codes that a server's exception stands for."""
    return {code for words, code in _OWN_WORDS.items() if words in text}


def read_failure(node: Node, codes: set[int]) -> ReplicaError:
    """Return the error for a read that failed with these codes."""
    if _TOO_MANY_TOMBSTONES in codes:
        return TooMuchToScan("the read met more tombstones than tombstone_failure_threshold allows", node)
    if _INDEX_TOO_LARGE in codes:
        return TooMuchToScan(
            "a partition's index is larger than row_index_read_size_fail_threshold allows to read; raise it", node
        )
    if _READ_TOO_LARGE in codes:
        return TooMuchToScan(
            "the read is larger than local_read_size_fail_threshold or row_index_read_size_fail_threshold allows;"
            " raise it",
            node,
        )
    if _CORRUPT in codes:
        return ReplicaError(
            "an SSTable there is corrupt; its system.log names the file: nodetool scrub, then nodetool repair", node
        )
    return ReplicaError("the read failed in the server; see its system.log", node)
