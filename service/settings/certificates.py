"""Certificates and keys: checked before anything is served with them.

Where they are from: service/settings/pem_files.py. Knows nothing of connections: what is done with
them is the business of service/rpc and service/cli. Loads a library of some 10 MB, so who speaks
plain text should not import this.
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

# What every gRPC client takes; with other curves, or Ed25519, handshakes fail.
_CURVES = (ec.SECP256R1, ec.SECP384R1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and its key, in PEM, which belong together. ``names``: the DNS names and
    addresses that the certificate is for."""

    chain: bytes
    key: bytes
    names: tuple[str, ...]
    valid_from: datetime
    valid_until: datetime


@dataclass(frozen=True, slots=True)
class Material:
    """What one end of a connection shows, and whom it believes."""

    pair: Pair | None = None
    authorities: bytes | None = None


def load(files: TlsFiles, now: datetime | None = None) -> Material:
    """What is in the files, checked, by default for the present time. BadCertificate."""
    return check(files, files.read(), now or datetime.now(UTC))


def check(files: TlsFiles, contents: Sequence[bytes | None], now: datetime) -> Material:
    """``contents`` of the files, as they were read. BadCertificate where they cannot serve, or not
    at that time."""
    chain, key, authorities = contents
    pair = None
    if files.cert is not None and files.key is not None:
        pair = pair_of(files.cert, chain or b"", files.key, key or b"")
        _check_time(files.cert, pair, now)
    if files.authorities is not None:
        _check_authorities(files.authorities, authorities or b"", now)
    return Material(pair, authorities)


def pair_of(cert_file: PemFile, chain: bytes, key_file: PemFile, key: bytes) -> Pair:
    """The pair in two files' contents, whatever the time is. BadCertificate where it is none."""
    own = _certificates(cert_file, chain)[0]
    private = _private_key(key_file, key)
    try:
        belongs = own.public_key() == private.public_key()
    except (ValueError, UnsupportedAlgorithm):
        belongs = False  # a certificate of a key that cannot be that one
    if not belongs:
        raise key_file.wrong(f"is not the key of the first certificate in {cert_file.path}")
    return Pair(chain, key, _names(own), own.not_valid_before_utc, own.not_valid_after_utc)


def _certificates(file: PemFile, contents: bytes) -> list[x509.Certificate]:
    """At least one."""
    try:
        return x509.load_pem_x509_certificates(contents)
    except ValueError as error:
        raise file.wrong("holds no certificate in PEM form, or a damaged one") from error


def _private_key(file: PemFile, contents: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(contents, password=None)
    except TypeError as error:
        raise file.wrong("is encrypted; a server cannot be asked for its password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise file.wrong("holds no private key in PEM form, or a damaged one") from error
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
        raise file.wrong(f"is not valid before {shown(pair.valid_from)}; is the clock right?")


def _check_authorities(file: PemFile, contents: bytes, now: datetime) -> None:
    latest = max(c.not_valid_after_utc for c in _certificates(file, contents))
    if now >= latest:
        raise file.wrong(f"holds only certificates that have expired, the last at {shown(latest)}")


def valid_until(material: Material) -> dict[str, datetime]:
    """When what is in use ends: "server", the first of the chain's certificates to do so, and
    "client_ca", the first of the authorities that has not yet."""
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
    """As texts show a time."""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
