"""Checks certificates and keys before a server or client uses them.

service/settings/pem_files.py reads the files. Must not depend on gRPC: service/rpc and service/cli
create the credentials. Importing this module loads a library of about 10 MB, so code for plain text
should not import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tollwire.service.settings.pem_files import PemFile, TlsFiles

# Curves that every gRPC client supports; with other curves, or Ed25519, handshakes fail.
_CURVES = (ec.SECP256R1, ec.SECP384R1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and its private key, in PEM. ``names``: the DNS names and addresses in
    the certificate."""

    chain: bytes
    key: bytes
    names: tuple[str, ...]
    valid_from: datetime
    valid_until: datetime


@dataclass(frozen=True, slots=True)
class Material:
    """The certificate of one end of a connection, and the authorities that it trusts (PEM)."""

    pair: Pair | None = None
    authorities: bytes | None = None


def load(files: TlsFiles, now: datetime | None = None) -> Material:
    """Read and check the files; ``now`` defaults to the current time. BadCertificate if they are
    not valid."""
    return check(files, files.read(), now or datetime.now(UTC))


def check(files: TlsFiles, contents: Sequence[bytes | None], now: datetime) -> Material:
    """Check ``contents``, as ``files.read`` returned them. BadCertificate if they are not valid at
    the time ``now``."""
    chain, key, authorities = contents
    pair = None
    if files.cert is not None and files.key is not None:
        pair = pair_of(files.cert, chain or b"", files.key, key or b"")
        _check_time(files.cert, pair, now)
    if files.authorities is not None:
        _check_authorities(files.authorities, authorities or b"", now)
    return Material(pair, authorities)


def pair_of(cert_file: PemFile, chain: bytes, key_file: PemFile, key: bytes) -> Pair:
    """The pair in the contents of two files; the dates are not checked. BadCertificate if the
    contents are damaged or the key belongs to another certificate."""
    own = _certificates(cert_file, chain)[0]
    private = _private_key(key_file, key)
    try:
        belongs = own.public_key() == private.public_key()
    except (ValueError, UnsupportedAlgorithm):
        belongs = False  # the certificate has a kind of key that is not supported
    if not belongs:
        raise key_file.wrong(f"is not the key of the first certificate in {cert_file.path}")
    return Pair(chain, key, _names(own), own.not_valid_before_utc, own.not_valid_after_utc)


def _certificates(file: PemFile, contents: bytes) -> list[x509.Certificate]:
    """At least one certificate. BadCertificate if there is none."""
    try:
        return x509.load_pem_x509_certificates(contents)
    except ValueError as error:
        raise file.wrong("contains no certificate in PEM format, or a damaged one") from error


def _private_key(file: PemFile, contents: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(contents, password=None)
    except TypeError as error:
        raise file.wrong("is encrypted; use a key without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise file.wrong("contains no private key in PEM format, or a damaged one") from error
    is_known_curve = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES)
    if not isinstance(key, rsa.RSAPrivateKey) and not is_known_curve:
        raise file.wrong("must be an RSA key, or one on the curve P-256 or P-384")
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return key


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    addresses = found.get_values_for_type(x509.IPAddress)
    return (*found.get_values_for_type(x509.DNSName), *map(str, addresses))


def _check_time(file: PemFile, pair: Pair, now: datetime) -> None:
    if now >= pair.valid_until:
        raise file.wrong(f"expired at {shown(pair.valid_until)}")
    if now < pair.valid_from:
        raise file.wrong(f"is not valid before {shown(pair.valid_from)}; check the clock")


def _check_authorities(file: PemFile, contents: bytes, now: datetime) -> None:
    latest = max(c.not_valid_after_utc for c in _certificates(file, contents))
    if now >= latest:
        raise file.wrong(
            f"contains only certificates that have expired, the last at {shown(latest)}"
        )


def valid_until(material: Material) -> dict[str, datetime]:
    """When the certificates in use expire. "server": the certificate of the chain that expires
    first; "client_ca": the authority that expires first, without those that have expired."""
    found = {}
    if material.pair is not None:
        chain = x509.load_pem_x509_certificates(material.pair.chain)
        found["server"] = min(one.not_valid_after_utc for one in chain)
    if material.authorities is not None:
        ends = [
            c.not_valid_after_utc for c in x509.load_pem_x509_certificates(material.authorities)
        ]
        now = datetime.now(UTC)
        found["client_ca"] = min((end for end in ends if end > now), default=max(ends))
    return found


def shown(moment: datetime) -> str:
    """A time in messages."""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
