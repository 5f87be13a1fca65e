"""Logins, TLS contexts and Clusters of the caller's own: accepted, used, left as they were, never shown."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cassandra
import pytest
from cassandra.auth import AuthProvider, PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import DCAwareRoundRobinPolicy

from consistency.cluster.connection import Connection
from consistency.cluster.driver import Dialer
from consistency.cluster.driver_errors import connect_error
from consistency.cluster.settings import CONNECTION, TARGET, ConnectionSettings
from consistency.cluster.tls import TlsSettings, WeakTlsWarning
from consistency.errors import ConnectError, SettingsError
from tests.support.certificates import Authority

SECRET = "canary-9b1c"


class Ticket(AuthProvider):  # type: ignore[misc]
    """A login that has neither user nor password, as Kerberos has."""

    def __init__(self) -> None:
        self.secret = SECRET

    def __repr__(self) -> str:
        return SECRET


def own(**given: Any) -> Cluster:
    """Return a Cluster as a program of the caller's makes it; nothing listens where it points."""
    profile = ExecutionProfile(load_balancing_policy=DCAwareRoundRobinPolicy("dc1"))
    return Cluster(["127.0.0.1"], port=1, **{"execution_profiles": {EXEC_PROFILE_DEFAULT: profile}, **given})


def test_an_auth_provider_logs_in_in_place_of_a_password() -> None:
    """It is handed to the driver as it is."""
    ticket = Ticket()
    dialer = Dialer(ConnectionSettings(auth_provider=ticket))
    assert dialer._cluster.auth_provider is ticket
    dialer.close()


def test_the_role_of_a_login_is_what_is_known_of_it() -> None:
    """Where a provider does not say, it is empty; where the servers ask for no login, there is none."""

    def role(settings: ConnectionSettings, *, asked: bool = True) -> str | None:
        dialer = Dialer(settings)
        connection = Connection(dialer)
        line = SimpleNamespace(host_id="host", place=("h", 1), usable=True, logged_in=asked, protocol_version=5)
        connection._keep(line)  # type: ignore[arg-type]
        connection._channels.clear()  # lost since
        try:
            return connection.username
        finally:
            dialer.close()
            if settings.cluster is not None:
                settings.cluster.shutdown()

    assert role(ConnectionSettings(), asked=False) is None
    assert role(ConnectionSettings(username="checker", password=SECRET)) == "checker"
    assert role(ConnectionSettings(username="checker", password=SECRET), asked=False) is None
    assert role(ConnectionSettings(auth_provider=Ticket())) == ""
    assert role(ConnectionSettings(auth_provider=Ticket(), username="checker")) == "checker"
    assert role(ConnectionSettings(cluster=own(auth_provider=PlainTextAuthProvider("theirs", SECRET)))) == "theirs"


def test_a_context_of_ones_own_is_used_for_tls() -> None:
    """As it is; files are still loaded into one."""
    context = ssl.create_default_context()
    settings = ConnectionSettings(tls=context)
    assert settings.ssl_context() is context
    assert isinstance(replace(settings, tls=TlsSettings()).ssl_context(), ssl.SSLContext)
    assert ConnectionSettings().ssl_context() is None


def test_secrets_are_not_in_the_repr() -> None:
    """Settings are logged and shown in tracebacks."""
    cluster = own(auth_provider=PlainTextAuthProvider("theirs", SECRET))
    for settings in (
        ConnectionSettings(username="checker", password=SECRET),
        ConnectionSettings(auth_provider=Ticket(), username="checker"),
        ConnectionSettings(cluster=cluster),
    ):
        assert SECRET not in repr(settings)
    cluster.shutdown()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"auth_provider": Ticket(), "password": SECRET}, "either auth_provider or password"),
        ({"cluster": object(), "password": SECRET}, "to the Cluster itself"),
        ({"cluster": object(), "tls": TlsSettings()}, "to the Cluster itself"),
        ({"cluster": object(), "protocol": 4}, "to the Cluster itself"),
    ],
)
def test_what_has_no_effect_is_refused(given: dict[str, Any], says: str) -> None:
    """A login that is given twice would be used once."""
    with pytest.raises(SettingsError, match=says) as found:
        ConnectionSettings(**given)
    assert SECRET not in str(found.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"auth_provider": ("user", SECRET)}, "cassandra.auth.AuthProvider, not tuple"),
        ({"cluster": "10.0.0.1"}, "cassandra.cluster.Cluster, not str"),
    ],
)
def test_what_is_of_another_kind_is_refused(given: dict[str, Any], says: str) -> None:
    """In one line that names its type alone."""
    with pytest.raises(SettingsError, match=says) as found:
        asyncio.run(Connection.open(ConnectionSettings(**given)))
    assert SECRET not in str(found.value)


def test_a_cluster_of_ones_own_is_left_as_it_was() -> None:
    """Its profiles stay as they are, it is neither connected nor closed; one that was shut down is refused."""
    cluster = own()
    before = dict(cluster.profile_manager.profiles)
    for _ in range(2):
        with pytest.raises(ConnectError, match="no node answers at the contact points of the Cluster given"):
            asyncio.run(Connection.open(ConnectionSettings(cluster=cluster)))
    assert cluster.profile_manager.profiles == before
    assert not cluster.sessions
    assert not cluster.is_shutdown
    cluster.shutdown()
    with pytest.raises(SettingsError, match="was shut down"):
        Dialer(ConnectionSettings(cluster=cluster))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (ConnectionSettings(), "set CONSISTENCY_USERNAME and CONSISTENCY_PASSWORD"),
        (ConnectionSettings(username="checker", password=SECRET), "user 'checker': check the password"),
        (ConnectionSettings(auth_provider=Ticket()), "login of the Ticket given"),
        (ConnectionSettings(cluster=object()), "give the Cluster an auth_provider"),
    ],
)
def test_a_refused_login_says_what_to_do(settings: ConnectionSettings, says: str) -> None:
    """For each way of logging in, without the secret."""
    error = connect_error(settings, cassandra.AuthenticationFailed("no"), login=True, unknown_host=False)
    assert says in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (
            "[Errno 111] Tried connecting to [('127.0.0.1', 9042)]. Last error: Connection refused",
            "no node answers at 127.0.0.1:9042: Connection refused; is Cassandra running there",
        ),
        ("[Errno -2] Name or service not known", "--hosts 127.0.0.1:9042: no such host name"),
        (
            "This version of the driver does not support protocol version 72",
            "something answers that does not speak Cassandra's native protocol; is Cassandra running there",
        ),
        (
            "errors=Timed out creating connection (5.0 seconds), last_host=None",
            "no node answers at 127.0.0.1:9042: Timed out creating connection (5.0 seconds); is Cassandra running",
        ),
        (
            "Connection reset by peer",
            "Does it want TLS (--tls, and CONSISTENCY_TLS_CA_FILE or [connection] tls with your authority)?",
        ),
        ("CERTIFICATE_VERIFY_FAILED", "the certificate of 127.0.0.1:9042 is of an authority that is not trusted here"),
    ],
)
def test_no_answer_is_said_in_our_words(said: str, says: str) -> None:
    """As the driver and the system's resolver word it."""
    error = connect_error(ConnectionSettings((("127.0.0.1", 9042),)), OSError(said), login=False, unknown_host=False)
    assert says in str(error)
    assert "Errno" not in str(error)


@pytest.mark.parametrize("said", ["[SSL: WRONG_VERSION_NUMBER] wrong version", "[SSL] RECORD_LAYER_FAILURE (_ssl.c)"])
def test_a_node_without_tls_is_not_said_to_want_another_certificate(said: str) -> None:
    """The way out is to leave TLS out."""
    for section, option in ((CONNECTION, "--no-tls"), (TARGET, "--no-target-tls")):
        settings = ConnectionSettings((("127.0.0.1", 9042),), tls=TlsSettings(), section=section)
        error = connect_error(settings, OSError(said), login=False, unknown_host=False)
        assert str(error).startswith("127.0.0.1:9042 does not speak TLS")
        assert str(error).endswith(f"Without TLS: {option}")


@pytest.mark.parametrize(
    ("tls", "says"),
    [(TlsSettings(check_hostname=False), "check_hostname = false"), (TlsSettings(verify=False), "verify = false")],
)
def test_tls_that_verifies_less_is_warned_about(tls: TlsSettings, says: str) -> None:
    """Each time a context is made of it; one that verifies all is silent, as every warning is an error here."""
    with pytest.warns(WeakTlsWarning, match=says):
        context = tls.context()
    assert not context.check_hostname
    full = TlsSettings().context()
    assert full.check_hostname
    assert full.verify_mode is ssl.CERT_REQUIRED


def test_a_node_with_the_certificate_of_another_is_named_with_what_it_shows(tmp_path: Path) -> None:
    """The whole way, by a real handshake: host, names in its certificate, and the ways out, in one line."""
    authority = Authority.create(tmp_path)
    certificate, key = authority.issue("node", ["127.0.0.9", "127.0.0.8"])
    with handshakes(certificate, key) as port:
        settings = ConnectionSettings((("127.0.0.1", port),), port=port, tls=TlsSettings(str(authority.ca_file)))
        with pytest.raises(ConnectError) as caught:
            asyncio.run(Connection.open(settings))
        said = str(caught.value)
        assert f"127.0.0.1:{port} shows a certificate for 127.0.0.9, 127.0.0.8, not for 127.0.0.1" in said
        assert "check_hostname = false" in said
        assert "\n" not in said
        stranger = Authority.create(tmp_path, "stranger")
        other = replace(settings, tls=TlsSettings(str(stranger.ca_file)))
        with pytest.raises(ConnectError, match="ertificate") as caught:  # whose names nobody vouches for
            asyncio.run(Connection.open(other))
        assert "127.0.0.9" not in str(caught.value)


@contextmanager
def handshakes(certificate: Path, key: Path) -> Iterator[int]:
    """Answer TLS handshakes on a port of 127.0.0.1, and nothing more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                with suppress(OSError), context.wrap_socket(plain, server_side=True) as node:
                    node.recv(1)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
