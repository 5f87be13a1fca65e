"""Why a node does not answer us: the driver's real errors, and the servers' own words, in one clause."""

from __future__ import annotations

import asyncio
import socket
import ssl

import cassandra
import pytest
from cassandra.cluster import NoHostAvailable
from cassandra.connection import (
    ConnectionException,
    ConnectionShutdown,
    DefaultEndPoint,
    ProtocolError,
    ProtocolVersionUnsupported,
)
from cassandra.protocol import IsBootstrappingErrorMessage, OverloadedErrorMessage, ProtocolException

from consistency.cluster.driver import translate
from consistency.cluster.silence import silence, way_out, why
from consistency.model.ring import Node

ADDRESS = "Tried connecting to [('10.0.0.1', 9042)]. Last error: "
REFUSED = ConnectionRefusedError(111, f"{ADDRESS}Connection refused")
RESET = ConnectionResetError(104, "Connection reset by peer")
LIMITS = (
    "the server closed the connection at once: it may allow no more connections from our address"
    " (native_transport_max_concurrent_connections_per_ip)"
)
VERIFY = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "


def said(words: str, code: str = "0100") -> str:
    """Return an error's text as the driver wraps the server's words."""
    return (
        f'Failed to authenticate to 10.0.0.1:9042: Error from server: code={code} [Bad credentials] message="{words}"'
    )


@pytest.mark.parametrize(
    ("error", "clause", "advice"),
    [
        (REFUSED, "connection refused", "nodetool enablebinary"),
        (cassandra.OperationTimedOut("Timed out creating connection (3 seconds)"), "no answer in time", "firewall"),
        (asyncio.TimeoutError(), "no answer in time", "firewall"),
        (OSError(113, f"{ADDRESS}No route to host"), "no route to it", "firewall"),
        (socket.gaierror(-2, "Name or service not known"), "its host name is not known to our resolver", "DNS"),
        (cassandra.AuthenticationFailed("Remote end requires authentication"), "it asks for a login", "password"),
        (cassandra.AuthenticationFailed(said("nologin is not permitted to log in")),
         "the login was refused: nologin is not permitted to log in", "password"),
        (cassandra.Unauthorized(said("You do not have access to this datacenter (dc1)", "2100")),
         "our role has no access to its data centre: You do not have access to this datacenter (dc1)",
         "ACCESS TO ALL DATACENTERS"),
        (cassandra.Unauthorized(said("You do not have access from this IP 10.1.1.1", "2100")),
         "our role has no access from our address: You do not have access from this IP 10.1.1.1", "ALL CIDRS"),
        (RESET, f"{LIMITS}, or want TLS", "native_transport_max_concurrent_connections_per_ip"),
        (ConnectionShutdown("Connection to 10.0.0.1:9042 was closed"), f"{LIMITS}, or want TLS", "_per_ip"),
        (ProtocolVersionUnsupported(DefaultEndPoint("10.0.0.1"), 5),
         "it does not speak our version of the native protocol", "protocol version"),
        (ProtocolError("This version of the driver does not support protocol version 72"),
         "something answers that does not speak Cassandra's native protocol", "native (CQL) port"),
        (ProtocolException(0x000A, "Beta version of the protocol used", None),
         "it refused our protocol: Beta version of the protocol used", "upgrade"),
        (PermissionError(1, f"{ADDRESS}[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"),
         "it does not speak TLS", "client_encryption_options"),
        (OSError(1, f"{ADDRESS}{VERIFY}IP address mismatch, certificate is not valid for '10.0.0.1'."),
         "its certificate is not for this address", "names its address"),
        (ssl.SSLCertVerificationError(1, f"{VERIFY}Hostname mismatch, certificate is not valid for 'a'."),
         "its certificate is not for this address", "names its address"),
        (OSError(1, f"{ADDRESS}{VERIFY}self-signed certificate"),
         "its certificate is not signed by an authority that we trust", "authority"),
        (OSError(1, f"{ADDRESS}{VERIFY}certificate has expired"), "its certificate has expired", "renew"),
        (ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required"),
         "it asks for a client certificate", "client certificate"),
        (ssl.SSLError(1, "[SSL: NO_CIPHERS] none left"), "TLS failed: [SSL: NO_CIPHERS] none left",
         "client_encryption_options"),
        (OverloadedErrorMessage(0x1001, "busy", None), "it is overloaded", "tpstats"),
        (IsBootstrappingErrorMessage(0x1002, "starting", None), "it is still starting", "has started"),
        (ConnectionException("lost"), "the connection was lost", "statusbinary"),
        (ValueError("odd thing"), "odd thing", "firewall"),
        (ValueError(), "ValueError", "firewall"),
    ],
)  # fmt: skip
def test_each_reason_has_its_clause_and_its_way_out(error: Exception, clause: str, advice: str) -> None:
    """The node's name is not in the clause; the advice names it, and fits."""
    node = Node("a", "10.0.0.1", 9042, "dc1", "r1", (1,), "5.0.8", up=False, silence=silence(error))
    assert str(node.silence) == clause
    assert advice in way_out(node)
    assert "\n" not in way_out(node)
    assert "{" not in way_out(node)
    assert why(node) == f"does not answer us: {clause}"


def test_what_is_innermost_is_what_happened() -> None:
    """The driver wraps errors by host, and we wrap those of the driver."""
    node = Node("a", "10.0.0.1", 9042, "dc1", "r1", (1,), "5.0.8")
    wrapped = NoHostAvailable("Unable to connect", {"10.0.0.1:9042": REFUSED})
    assert str(silence(wrapped)) == "connection refused"
    ours = translate(node, wrapped)
    ours.__cause__ = wrapped
    assert str(silence(ours)) == "connection refused"


def test_what_the_caller_knows_makes_it_exact() -> None:
    """How long was waited; that TLS is spoken already."""
    assert silence(cassandra.OperationTimedOut(), waited_s=5.0).clause == "no answer within 5 s"
    node = Node("a", "10.0.0.1", 9042, "dc1", "r1", (1,), "5.0.8", silence=silence(RESET, tls=True))
    assert str(node.silence) == LIMITS
    assert "per_ip" in way_out(node)
    assert why(Node("a", "10.0.0.1", 9042, "dc1", "r1", (1,), "5.0.8")) == "does not answer us"
