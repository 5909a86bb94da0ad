"""The options of a client command for TLS, and a check of the files that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tollwire.service.cli.shared_options import SharedOption
from tollwire.service.settings.pem_files import BadCertificate, PemFile, TlsFiles

_PATH = click.Path(path_type=Path)


def transport_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --tls and its options to a command."""
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


def check_files(options: dict[str, Any]) -> None:
    """UsageError, with the reason, if the files of TLS in ``options`` cannot be used."""
    cert, key, ca = (
        None if path is None else PemFile(f"--{name}-file", path)
        for name, path in ((name, options[f"{name}_file"]) for name in ("cert", "key", "ca"))
    )
    files = TlsFiles(cert, key, ca)
    if files == TlsFiles() or (cert is None) != (key is None):
        return  # the client refuses one of the pair
    # Imported here: commands in plain text start without the certificate library.
    from tollwire.service.settings import certificates

    try:
        certificates.load(files)
    except BadCertificate as error:
        raise click.UsageError(str(error)) from None
