"""Why a node does not answer us, in one short clause, and the remedy; it needs no driver.

Failures are told apart by the names of the driver's classes and by the words of servers and systems.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consistency.cluster.driver_errors import NO_SUCH_NAME, first_line
from consistency.model.ring import Silence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consistency.model.ring import Node


_OR_TLS = ", or want TLS"


@dataclass(frozen=True, slots=True)
class _Reason:
    """One kind of silence.

    It is recognized by the name of the error's class or of a base class, or by words in its text; by both if both
    are given. `clause` describes it, `{said}` are the server's own words. `way_out` is the remedy for the operator.
    """

    clause: str
    way_out: str
    classes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def fits(self, names: frozenset[str], text: str) -> bool:
        """Whether an error of these classes and this text is of this kind."""
        told = any(words.lower() in text.lower() for words in self.words)
        return (told or not self.words) and (not self.classes or not names.isdisjoint(self.classes))


_STATUS = "on {node}: nodetool statusbinary, then nodetool enablebinary"
_FIREWALL = f"look for a firewall between us and {{node}}; {_STATUS}"
_LIMITS = (
    "close other connections, or raise native_transport_max_concurrent_connections_per_ip or"
    " native_transport_max_concurrent_connections in cassandra.yaml of {node}"
)
_TLS = "compare client_encryption_options in cassandra.yaml of {node} with our TLS settings"
_LOGIN = "give a user and password that {node} accepts; if only some nodes refuse them: nodetool repair system_auth"

_REASONS = (
    _Reason(
        "another node answers at {said}",
        "give each node's address in [connection.addresses] of the configuration file",
        ("WrongNode",),
    ),
    # The server's own words first: they come in errors of several classes.
    _Reason(
        "our role has no access to its data centre: {said}",
        "ALTER ROLE our role WITH ACCESS TO ALL DATACENTERS, or add that of {node} to its list",
        words=("You do not have access to this datacenter",),
    ),
    _Reason(
        "our role has no access from our address: {said}",
        "ALTER ROLE our role WITH ACCESS FROM ALL CIDRS, or put our address into one of its CIDR groups",
        words=("You do not have access from this IP",),
    ),
    _Reason("it asks for a login", _LOGIN, ("AuthenticationFailed",), ("requires authentication",)),
    _Reason("the login was refused: {said}", _LOGIN, ("AuthenticationFailed",)),
    _Reason("its host name is not known to our resolver", "mend DNS or the address of {node}", ("gaierror",)),
    _Reason("its host name is not known to our resolver", "mend DNS or the address of {node}", words=NO_SUCH_NAME),
    _Reason(
        "its certificate is not for this address",
        "give {node} a certificate that names its address (rpc_address, broadcast_rpc_address)",
        words=("IP address mismatch", "Hostname mismatch", "doesn't match"),
    ),
    _Reason("its certificate has expired", "renew the certificate of {node}", words=("certificate has expired",)),
    _Reason(
        "its certificate is not signed by an authority that we trust",
        "name the authority of the certificate of {node} in our TLS settings",
        words=("CERTIFICATE_VERIFY_FAILED",),
    ),
    _Reason("it does not speak TLS", _TLS, words=("WRONG_VERSION_NUMBER", "wrong version number", "record layer")),
    _Reason(
        "it asks for a client certificate",
        "give a client certificate that {node} accepts in our TLS settings",
        words=("certificate required", "certificate_required", "bad certificate", "bad_certificate", "unknown ca"),
    ),
    _Reason("TLS failed: {said}", _TLS, ("SSLError",)),
    _Reason("TLS failed: {said}", _TLS, words=("[SSL",)),
    _Reason("it is still starting", "wait until {node} has started", ("IsBootstrappingErrorMessage",)),
    _Reason("it is overloaded", "wait, or relieve {node}: nodetool tpstats there", ("OverloadedErrorMessage",)),
    _Reason(
        "it does not speak our version of the native protocol",
        "set the protocol version to one that every node speaks, or finish the upgrade of {node}",
        ("ProtocolVersionUnsupported",),
    ),
    _Reason(
        "something answers that does not speak Cassandra's native protocol",
        "is that the native (CQL) port of {node}? Does it want TLS?",
        words=("does not support protocol version",),
    ),
    _Reason("it refused our protocol: {said}", "finish the upgrade of {node}", ("ProtocolException", "ProtocolError")),
    _Reason("connection refused", _STATUS, ("ConnectionRefusedError",)),
    _Reason("connection refused", _STATUS, words=("Connection refused",)),
    _Reason(
        "the server closed the connection at once: it may allow no more connections from our address"
        f" (native_transport_max_concurrent_connections_per_ip){_OR_TLS}",
        f"{_LIMITS}; {_TLS}",
        ("ConnectionResetError", "BrokenPipeError", "ConnectionShutdown"),
    ),
    _Reason(
        "no route to it",
        "look for a firewall between us and {node}, or translate its address",
        words=("No route to host", "Network is unreachable", "Host is down"),
    ),
    _Reason("no answer in time", _FIREWALL, ("OperationTimedOut", "TimeoutError", "ReplicaTimeout")),
    _Reason("no answer in time", _FIREWALL, words=("timed out", "Timed out")),
    _Reason("the connection was lost", _STATUS, ("ConnectionException",)),
)

_SERVERS_TEXT = re.compile(r'message="(?P<said>.*?)"(?: info=|\)?>?$)')
_WRAPPED = re.compile(r"^(?:\[Errno -?\d+\] )?(?:Tried connecting to .*? Last error: )?")


def silence(error: BaseException, *, waited_s: float | None = None, tls: bool | None = None) -> Silence:
    """Return why a node does not answer us, in the words of the server or network, and what helps.

    `error` is what the connection or the first request raised; `waited_s` is how long we waited for an answer, and
    `tls` whether we speak TLS, which rules out half of the reasons for a closed connection.
    """
    for one in _chain(error):
        names = frozenset(cls.__name__ for cls in type(one).__mro__)
        text = str(one)
        reason = next((reason for reason in _REASONS if reason.fits(names, text)), None)
        if reason is not None:
            clause = _worded(reason.clause.format(said=_said(text)), waited_s=waited_s, tls=tls)
            return Silence(clause, reason.way_out)
    return unheard_of(_said(str(error)) or type(error).__name__)


def unheard_of(clause: str) -> Silence:
    """Return a reason of which nothing more is known: what helps then may help here."""
    return Silence(clause, _FIREWALL)


def way_out(node: Node) -> str:
    """Return the operator's remedy for a node that does not answer us for this reason."""
    return (_FIREWALL if node.silence is None else node.silence.way_out).format(node=node)


def why(node: Node) -> str:
    """Return words for a node that does not answer us, with the reason if it is known."""
    return f"does not answer us: {node.silence}" if node.silence else "does not answer us"


def _worded(clause: str, *, waited_s: float | None, tls: bool | None) -> str:
    if clause.startswith("no answer in time") and waited_s is not None:
        return f"no answer within {waited_s:g} s"
    return clause.removesuffix(_OR_TLS) if tls else clause


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors, innermost first: those of the hosts, the cause of an error, the error."""
    tried = getattr(error, "errors", None)
    for inner in tried.values() if isinstance(tried, dict) else ():
        if isinstance(inner, BaseException):
            yield from _chain(inner)
    if error.__cause__ is not None:
        yield from _chain(error.__cause__)
    yield error


def _said(text: str) -> str:
    """Return the server's own words from an error's text, or its first line without the wrapping of the libraries."""
    found = _SERVERS_TEXT.search(text)
    return first_line(found["said"]) if found else _WRAPPED.sub("", first_line(text) if text.strip() else "")
