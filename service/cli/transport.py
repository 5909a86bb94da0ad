"""The transport of a client command: plain text, or TLS, with a client certificate if the server
requires one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import grpc

from tollwire.service.cli.shared_options import SharedOption
from tollwire.service.settings.pem_files import BadCertificate, PemFile, TlsFiles

_PATH = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Transport:
    """``credentials`` None: plain text. ``server_name``: the name that the server's certificate
    must contain; "": the host of the address."""

    credentials: grpc.ChannelCredentials | None = None
    server_name: str = ""

    @property
    def is_encrypted(self) -> bool:
        return self.credentials is not None

    def channel(self, server: str, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
        if self.credentials is None:
            return grpc.insecure_channel(server, options)
        if self.server_name:
            options = [*options, ("grpc.ssl_target_name_override", self.server_name)]
        return grpc.secure_channel(server, self.credentials, options)


PLAIN_TEXT = Transport()


def transport_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --tls and its options to a command; ``take_transport`` reads them."""
    for option in (
        click.option(
            "--server-name",
            cls=SharedOption,
            envvar="TOLLWIRE_SERVER_NAME",
            metavar="NAME",
            help="The name in the server's certificate, if it differs from the host of --server;"
            " implies --tls."
            "  [env: TOLLWIRE_SERVER_NAME]",
        ),
        click.option(
            "--key-file",
            cls=SharedOption,
            envvar="TOLLWIRE_KEY_FILE",
            type=_PATH,
            metavar="FILE",
            help="The private key of --cert-file, PEM.  [env: TOLLWIRE_KEY_FILE]",
        ),
        click.option(
            "--cert-file",
            cls=SharedOption,
            envvar="TOLLWIRE_CERT_FILE",
            type=_PATH,
            metavar="FILE",
            help="The client certificate, PEM; implies --tls.  [env: TOLLWIRE_CERT_FILE]",
        ),
        click.option(
            "--ca-file",
            cls=SharedOption,
            envvar="TOLLWIRE_CA_FILE",
            type=_PATH,
            metavar="FILE",
            help="The certificate authorities to trust, PEM; implies --tls. Default: gRPC's list of"
            " public authorities.  [env: TOLLWIRE_CA_FILE]",
        ),
        click.option(
            "--tls",
            cls=SharedOption,
            envvar="TOLLWIRE_TLS",
            is_flag=True,
            help="Connect over TLS.  [env: TOLLWIRE_TLS]",
        ),
    ):
        command = option(command)
    return command


def take_transport(options: dict[str, Any]) -> Transport:
    """Remove the options of ``transport_options`` from ``options``. UsageError if the files cannot
    be used."""
    tls: bool = options.pop("tls")
    named: dict[str, Path | None] = {
        f"--{name}-file": options.pop(f"{name}_file") for name in ("ca", "cert", "key")
    }
    server_name: str = options.pop("server_name") or ""
    ca, cert, key = (
        None if path is None else PemFile(option, path) for option, path in named.items()
    )
    if (cert is None) != (key is None):
        raise click.UsageError("--cert-file and --key-file must be given together")
    if not (tls or ca or cert or server_name):
        return PLAIN_TEXT
    return Transport(_credentials(TlsFiles(cert, key, ca)), server_name)


def _credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    if files == TlsFiles():
        return grpc.ssl_channel_credentials()
    # Imported here: commands in plain text start without the certificate library.
    from tollwire.service.settings import certificates

    try:
        material = certificates.load(files)
    except BadCertificate as error:
        raise click.UsageError(str(error)) from None
    if material.pair is None:
        return grpc.ssl_channel_credentials(material.authorities)
    return grpc.ssl_channel_credentials(
        material.authorities, material.pair.key, material.pair.chain
    )
