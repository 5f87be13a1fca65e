"""An authority of our own for one test session, made by openssl: certificates for nodes and for clients."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Authority:
    """Signs certificates; files are PEM. `bundle` is what Cassandra's PEM factory reads: key and chain in one."""

    directory: Path
    name: str = "ca"

    @property
    def ca_file(self) -> Path:
        """The certificate to trust."""
        return self.directory / f"{self.name}.crt"

    @classmethod
    def create(cls, directory: Path, name: str = "ca") -> Authority:
        """Make a new authority, or skip the test where there is no openssl."""
        if shutil.which("openssl") is None:
            pytest.skip("openssl makes the certificates, and there is none")
        made = cls(directory, name)
        made._key(name)
        made._openssl("req", "-x509", "-new", "-key", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN=test {name}",
                      "-days", "2")  # fmt: skip
        return made

    def issue(self, name: str, addresses: Sequence[str] = ()) -> tuple[Path, Path]:
        """Issue a certificate for some addresses; return the files of certificate and key."""
        self._key(name)
        self._openssl("req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        extensions = self.directory / f"{name}.ext"
        names = ",".join(f"IP:{address}" for address in addresses) or "DNS:client"
        extensions.write_text(f"subjectAltName={names}\n")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{self.name}.crt", "-CAkey", f"{self.name}.key",
                      "-CAcreateserial", "-days", "2", "-out", f"{name}.crt", "-extfile", extensions.name)  # fmt: skip
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        bundle = self.directory / f"{name}.pem"
        bundle.write_text(key.read_text() + certificate.read_text() + self.ca_file.read_text())
        return certificate, key

    def node_settings(self, addresses: Sequence[str], *, optional: bool, client_auth: bool) -> dict[str, str]:
        """Return the lines of cassandra.yaml by which nodes on these addresses speak TLS to clients."""
        self.issue("node", addresses)
        factory = "org.apache.cassandra.security.PEMBasedSslContextFactory"
        options = {
            "enabled": "true",
            "optional": "true" if optional else "false",
            "require_client_auth": "true" if client_auth else "false",
            "keystore": str(self.directory / "node.pem"),
            "truststore": str(self.ca_file),
            "ssl_context_factory": f"{{class_name: {factory}}}",
        }
        return {f"client_encryption_options.{name}": value for name, value in options.items()}

    def _key(self, name: str) -> None:
        self._openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key")

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
