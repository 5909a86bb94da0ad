"""Certificates and keys in files: usable ones are accepted, others are refused in one sentence that
names the option."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.rpc.authority import DAY, NOW, Authority, files_of
from tollwire.service.settings.certificates import load
from tollwire.service.settings.pem_files import BadCertificate

AUTHORITY = Authority()
PAIR = AUTHORITY.issue("tollwire.example", "127.0.0.1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With usable files."""
    PAIR.write(tmp_path)
    AUTHORITY.write(tmp_path)
    return tmp_path


def refused(folder: Path) -> str:
    with pytest.raises(BadCertificate) as error:
        load(files_of(folder, mutual=True))
    assert "\n" not in str(error.value)
    return str(error.value)


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, password: str = "") -> bytes:
    encrypted: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encrypted = serialization.BestAvailableEncryption(password.encode())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted
    )


def test_a_pair_and_its_authorities(folder: Path) -> None:
    material = load(files_of(folder, mutual=True))
    assert material.authorities == AUTHORITY.pem
    assert material.pair is not None
    assert (material.pair.chain, material.pair.key) == (PAIR.chain, PAIR.key)
    assert material.pair.names == ("tollwire.example", "127.0.0.1")
    assert abs(material.pair.valid_until - (NOW + 60 * DAY)) < DAY / 1000
    assert load(files_of(folder)).authorities is None


@pytest.mark.parametrize(
    ("file", "option"),
    [
        ("cert.pem", "--tls-cert-file"),
        ("key.pem", "--tls-key-file"),
        ("ca.pem", "--tls-client-ca-file"),
    ],
)
def test_unreadable_files_and_files_without_certificates(
    folder: Path, file: str, option: str
) -> None:
    path = folder / file
    whole = path.read_bytes()
    # The contents of other files, an empty file, damage in the middle, and more certificates than
    # one.
    others = PAIR.key if file != "key.pem" else PAIR.chain
    damaged = whole[:200] + b"!!!!" + whole[204:]
    for contents in (b"", b"junk", others, damaged, b"\n" * (4 * 2**20 + 1)):
        path.write_bytes(contents)
        assert refused(folder).startswith(f"{option}: {path} ")
    path.unlink()
    assert refused(folder) == f"{option}: {path} cannot be read: No such file or directory"
    path.mkdir()
    assert refused(folder) == f"{option}: {path} cannot be read: Is a directory"


def test_a_key_that_is_not_the_certificates(folder: Path) -> None:
    (folder / "key.pem").write_bytes(AUTHORITY.issue("tollwire.example").key)
    words = f"is not the key of the first certificate in {folder / 'cert.pem'}"
    assert refused(folder) == f"--tls-key-file: {folder / 'key.pem'} {words}"


def test_a_chain_whose_first_certificate_is_not_the_servers_own(folder: Path) -> None:
    (folder / "cert.pem").write_bytes(AUTHORITY.pem + PAIR.chain)
    assert refused(folder).startswith("--tls-key-file: ")
    (folder / "cert.pem").write_bytes(PAIR.chain + AUTHORITY.pem)
    assert load(files_of(folder)).pair is not None


def test_keys_that_grpc_cannot_use(folder: Path) -> None:
    path = folder / "key.pem"
    path.write_bytes(pem(ec.generate_private_key(ec.SECP256R1()), "secret"))
    assert "is encrypted" in refused(folder)
    for key in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP521R1())):
        path.write_bytes(pem(key))
        assert refused(folder).endswith("must be an RSA key, or one on the curve P-256 or P-384")


def test_certificates_outside_their_period_of_validity(folder: Path) -> None:
    AUTHORITY.issue("a.example", valid_from=NOW - 2 * DAY, valid_until=NOW - DAY).write(folder)
    shown = f"{NOW - DAY:%Y-%m-%d %H:%M:%S} UTC"
    assert refused(folder) == f"--tls-cert-file: {folder / 'cert.pem'} expired at {shown}"
    AUTHORITY.issue("a.example", valid_from=NOW + DAY, valid_until=NOW + 2 * DAY).write(folder)
    assert "is not valid before " in refused(folder)
    assert load(files_of(folder), NOW + 1.5 * DAY).pair is not None


def test_authorities_are_refused_if_all_have_expired(folder: Path) -> None:
    old = AUTHORITY.issue("old.example", valid_from=NOW - 2 * DAY, valid_until=NOW - DAY)
    (folder / "ca.pem").write_bytes(old.chain)
    assert "contains only certificates that have expired" in refused(folder)
    (folder / "ca.pem").write_bytes(old.chain + AUTHORITY.pem)
    assert load(files_of(folder, mutual=True)).authorities == old.chain + AUTHORITY.pem
