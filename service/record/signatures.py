"""Signatures of the entries of the ledger, by the operator's Ed25519 key.

The key is outside the database, so that nobody who has only the database can add an entry: neither
at the end of a chain nor by writing it again. The signed bytes are stored as a format is: they must
not change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from tollwire.service.domain.errors import invalid_field

# Several keys: a key may be replaced by another.
MAX_KEYS = 100
MAX_KEY_CHARS = 2_000
_HEAD = b"tollwire.signature.1"


def signer(pem: bytes) -> Callable[[bytes], bytes]:
    """The function that signs the hash of an entry. ValueError if this is no Ed25519 private key in
    PEM without a passphrase."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is not an Ed25519 private key in PEM without a passphrase")
    private = key
    return lambda entry_hash: private.sign(_HEAD + entry_hash)


class PublicKeys:
    """The keys of which one must have signed an entry."""

    def __init__(self, pems: Sequence[str]) -> None:
        """InvalidInput if one is not an Ed25519 public key in PEM."""
        if len(pems) > MAX_KEYS:
            raise invalid_field("public_keys", f"must be at most {MAX_KEYS}, got {len(pems)}")
        self._keys = [_public_key(index, pem) for index, pem in enumerate(pems)]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def have_signed(self, entry_hash: bytes, signature: object) -> bool:
        if not isinstance(signature, bytes):
            return False
        return any(_is_by(key, entry_hash, signature) for key in self._keys)


def _public_key(index: int, pem: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem.encode()) if len(pem) <= MAX_KEY_CHARS else None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise invalid_field(f"public_keys[{index}]", "must be an Ed25519 public key in PEM")
    return key


def _is_by(key: Ed25519PublicKey, entry_hash: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, _HEAD + entry_hash)
    except InvalidSignature:
        return False
    return True
