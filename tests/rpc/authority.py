"""A throw-away authority for the tests of TLS: what it signs is good for them alone."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from service.pem_files import PemFile, TlsFiles
from tests.rpc.running import DEADLINE_SECONDS

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate with those between it and the authority, and its key, both in PEM."""

    chain: bytes
    key: bytes

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Into cert.pem and key.pem, each in one piece, as tools that rotate certificates do."""
        written = []
        for name, contents in (("cert.pem", self.chain), ("key.pem", self.key)):
            fresh = folder / f".{name}"
            fresh.write_bytes(contents)
            written.append(fresh.replace(folder / name))
        return written[0], written[1]

    @property
    def der(self) -> bytes:
        """The certificate itself, as it goes over the wire."""
        first = self.chain.decode().partition("-----END CERTIFICATE-----")
        return ssl.PEM_cert_to_DER_cert(first[0] + first[1])


class Authority:
    def __init__(self) -> None:
        self._ca = trustme.CA()
        self.pem = self._ca.cert_pem.bytes()

    def issue(
        self,
        *names: str,
        common_name: str | None = None,
        valid_from: datetime = NOW - DAY,
        valid_until: datetime = NOW + DAY,
    ) -> Issued:
        made = self._ca.issue_cert(
            *names, common_name=common_name, not_before=valid_from, not_after=valid_until
        )
        chain = b"".join(part.bytes() for part in made.cert_chain_pems)
        return Issued(chain, made.private_key_pem.bytes())

    def write(self, folder: Path) -> Path:
        path = folder / "ca.pem"
        path.write_bytes(self.pem)
        return path


def files_of(folder: Path, *, mutual: bool = False) -> TlsFiles:
    """The server's files in a folder, under the names that ``write`` gives them."""
    return TlsFiles(
        PemFile("--tls-cert-file", folder / "cert.pem"),
        PemFile("--tls-key-file", folder / "key.pem"),
        PemFile("--tls-client-ca-file", folder / "ca.pem") if mutual else None,
    )


def shown_by(address: str) -> bytes:
    """The certificate that a server shows to a new connection, whoever signed it."""
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
