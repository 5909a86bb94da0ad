"""The PEM files that TLS is made of, each known by the option that named it: what is wrong with one
can be said to whoever gave that option.

What is in them, and whether it is fit: service/settings/certificates.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tollwire.service.settings.config import Settings

# A key and some certificates take kilobytes, the authorities of the whole web 250.
_MAX_FILE_BYTES = 4 * 1024 * 1024


class BadCertificate(Exception):
    """A file that cannot serve; the text names the option and says why."""


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file, and the option that named it, such as "--tls-cert-file"."""

    option: str
    path: Path

    def read(self) -> bytes:
        """The contents. BadCertificate where there are none."""
        try:
            with self.path.open("rb") as file:
                contents = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise self.wrong(f"cannot be read: {error.strerror}") from error
        except ValueError as error:  # a zero in the path
            raise self.wrong("is no path") from error
        if len(contents) > _MAX_FILE_BYTES:
            raise self.wrong(f"is larger than {_MAX_FILE_BYTES // 2**20} MiB")
        return contents

    def wrong(self, why: str) -> BadCertificate:
        return BadCertificate(f"{self.option}: {self.path} {why}")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of one end of connections: of a server, or of a client that may show nothing."""

    cert: PemFile | None = None
    key: PemFile | None = None
    authorities: PemFile | None = None

    def read(self) -> tuple[bytes | None, ...]:
        """The contents of the three. BadCertificate where one cannot be read."""
        return tuple(
            None if file is None else file.read()
            for file in (self.cert, self.key, self.authorities)
        )


def server_files(settings: Settings) -> TlsFiles:
    """The files that a server with these settings serves with."""
    return TlsFiles(
        _file("--tls-cert-file", settings.tls_cert_file),
        _file("--tls-key-file", settings.tls_key_file),
        _file("--tls-client-ca-file", settings.tls_client_ca_file),
    )


def _file(option: str, path: Path | None) -> PemFile | None:
    return None if path is None else PemFile(option, path)
