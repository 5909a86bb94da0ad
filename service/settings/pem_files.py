"""The PEM files of TLS. Each has the name of its option, for error messages.

service/settings/certificates.py checks the contents.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tollwire.service.settings.config import Settings

# A key and some certificates take kilobytes; all public certificate authorities take 250 kB.
_MAX_FILE_BYTES = 4 * 1024 * 1024


class BadCertificate(Exception):
    """A file that cannot be used; the text names the option and the reason."""


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file and its option, such as "--tls-cert-file"."""

    option: str
    path: Path

    def read(self) -> bytes:
        """The contents. BadCertificate if the file cannot be read."""
        try:
            with self.path.open("rb") as file:
                contents = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise self.wrong(f"cannot be read: {error.strerror}") from error
        except ValueError as error:  # a NUL character in the path
            raise self.wrong("is not a path") from error
        if len(contents) > _MAX_FILE_BYTES:
            raise self.wrong(f"is larger than {_MAX_FILE_BYTES // 2**20} MiB")
        return contents

    def wrong(self, why: str) -> BadCertificate:
        return BadCertificate(f"{self.option}: {self.path} {why}")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of one end of connections: a server, or a client, which may have no certificate."""

    cert: PemFile | None = None
    key: PemFile | None = None
    authorities: PemFile | None = None

    def read(self) -> tuple[bytes | None, ...]:
        """The contents of the three files. BadCertificate if one cannot be read."""
        return tuple(
            None if file is None else file.read()
            for file in (self.cert, self.key, self.authorities)
        )


def server_files(settings: Settings) -> TlsFiles:
    """The files of a server with these settings."""
    return TlsFiles(
        _file("--tls-cert-file", settings.tls_cert_file),
        _file("--tls-key-file", settings.tls_key_file),
        _file("--tls-client-ca-file", settings.tls_client_ca_file),
    )


def _file(option: str, path: Path | None) -> PemFile | None:
    return None if path is None else PemFile(option, path)
