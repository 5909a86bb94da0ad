"""A certificate authority for the tests of TLS alone."""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.rpc.running import DEADLINE_SECONDS
from tollwire.service.settings.pem_files import PemFile, TlsFiles

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, both in PEM."""

    chain: bytes
    key: bytes

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Into cert.pem and key.pem, each written at once, like tools that rotate certificates."""
        written = []
        for name, contents in (("cert.pem", self.chain), ("key.pem", self.key)):
            fresh = folder / f".{name}"
            fresh.write_bytes(contents)
            written.append(fresh.replace(folder / name))
        return written[0], written[1]

    @property
    def der(self) -> bytes:
        """The certificate itself, as it goes over the wire."""
        return ssl.PEM_cert_to_DER_cert(self.chain.decode())


class Authority:
    """Signs certificates for servers and clients alike."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        # Authorities are distinguished by their names, too.
        self._name = _name(f"Authority {secrets.token_hex(4)}")
        self._certificate = self._sign(
            self._name, self._key.public_key(), (NOW - 90 * DAY, NOW + 90 * DAY), authority=True
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        *names: str,
        uri: str = "",
        common_name: str = "",
        valid_from: datetime = NOW - DAY,
        valid_until: datetime = NOW + 60 * DAY,
    ) -> Issued:
        """``names``: DNS names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        shown: list[x509.GeneralName] = [_general_name(name) for name in names]
        if uri:
            shown.append(x509.UniformResourceIdentifier(uri))
        certificate = self._sign(
            _name(common_name), key.public_key(), (valid_from, valid_until), names=shown
        )
        return Issued(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        valid: tuple[datetime, datetime],
        *,
        names: Sequence[x509.GeneralName] = (),
        authority: bool = False,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
            .not_valid_before(valid[0])
            .not_valid_after(valid[1])
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def write(self, folder: Path) -> Path:
        path = folder / "ca.pem"
        path.write_bytes(self.pem)
        return path


def _name(common_name: str) -> x509.Name:
    if not common_name:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def files_of(folder: Path, *, mutual: bool = False) -> TlsFiles:
    """The server's files in a folder, under the names that ``write`` gives them."""
    return TlsFiles(
        PemFile("--tls-cert-file", folder / "cert.pem"),
        PemFile("--tls-key-file", folder / "key.pem"),
        PemFile("--tls-client-ca-file", folder / "ca.pem") if mutual else None,
    )


def shown_by(address: str) -> bytes:
    """The certificate that a server shows to a new connection, without a check of its signer."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), DEADLINE_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        return secured.getpeercert(binary_form=True) or b""
