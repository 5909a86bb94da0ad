"""Finds the caller of a token or a client certificate.

Every worker has one ``Credentials`` with all tokens that are not revoked, in memory; it follows the
committed changes (service/storage/tokens.py). While the database is unavailable, the last state is
used. The expiry is checked each time.

A token's text is "tw_", its id, "_" and 43 characters of base64url: 256 random bits. The database
stores their SHA-256. Random secrets cannot be guessed from the digest, so a slower hash is not
needed. The response time does not reveal whether an id exists: the same hash and a constant-time
comparison run for each text.

Must not depend on gRPC: texts and identities are arguments.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from tollwire.service.domain.errors import Reason, Unauthenticated, Unavailable
from tollwire.service.domain.model import Token
from tollwire.service.domain.request import Caller
from tollwire.service.domain.thread_context import Work
from tollwire.service.storage import tokens
from tollwire.service.storage.change_follower import ChangeFollower
from tollwire.service.storage.engine import Database

_LOG = logging.getLogger("tollwire.tokens")

_SECRET_BYTES = 32
_TEXT = re.compile(r"tw_([1-9][0-9]{0,18})_([A-Za-z0-9_-]{43})")


def new_secret() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


def digest(secret: str) -> bytes:
    """The digest of a secret, which is stored instead of the secret."""
    return sha256(secret.encode()).digest()


def text_of(token_id: int, secret: str) -> str:
    """The text that the holder of a token sends."""
    return f"tw_{token_id}_{secret}"


@dataclass(frozen=True, slots=True)
class _Known:
    """A token that is not revoked."""

    caller: Caller
    secret_sha256: bytes
    expires_at_ns: int | None
    certificate_identity: str


class Credentials:
    """All valid tokens and certificate identities. Thread-safe.

    Call ``load`` before the first use, ``follow`` to apply changes of other workers, and ``close``
    at the end.
    """

    def __init__(self, database: Database, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock_ns = clock_ns
        self._by_id: dict[int, _Known] = {}
        self._by_identity: dict[str, _Known] = {}
        # Replaces a token that does not exist: no text has this digest.
        self._nobody = secrets.token_bytes(_SECRET_BYTES)
        self._known_seq = 0
        self._any_was_created = False
        self._reading = threading.Lock()
        self._follower = ChangeFollower(
            database,
            tokens.CLOCK,
            what="changes of tokens",
            log=_LOG,
            known_seq=lambda: self._known_seq,
            refresh=self.load,
        )

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def any_was_created(self) -> bool:
        """Whether the database has ever had a token, also one that is revoked or has expired."""
        return self._any_was_created

    def load(self) -> None:
        """Load all committed changes."""
        with self._reading, self._database.read(work=Work.LOOK) as connection:
            # Read before the tokens: changes that are committed meanwhile are loaded next time.
            seq = tokens.change_seq(connection)
            for token, secret_sha256 in tokens.changed_since(connection, self._known_seq):
                self._apply(token, secret_sha256)
            self._known_seq = seq

    def load_after_commit(self) -> None:
        """As ``load``, after a change was committed. Logs a failure to read instead of raising: the
        change is committed, and the follower will load it."""
        try:
            self.load()
        except Unavailable:
            _LOG.warning("a change of tokens is committed, but cannot be read back yet; will retry")

    def follow(self) -> None:
        """Start a thread that applies the changes of other workers."""
        self._follower.start()

    def close(self) -> None:
        """Stop the thread. A database that does not answer delays this by a few seconds at most."""
        self._follower.close()

    def of_token(self, text: str) -> Caller:
        """The caller of this token. Unauthenticated TOKEN_INVALID if it is not valid; the error
        does not contain the reason."""
        match = _TEXT.fullmatch(text)
        token_id, secret = (int(match[1]), match[2]) if match else (0, text)
        known = self._by_id.get(token_id)
        kept = self._nobody if known is None else known.secret_sha256
        is_right = compare_digest(digest(secret), kept)
        if known is None or not is_right or not self._is_in_time(known):
            raise token_invalid()
        return known.caller

    def of_certificate(self, identities: Iterable[str]) -> Caller | None:
        """The caller of a certificate with these identities: that of the first identity for which
        there is a token. None if there is no token for any of them."""
        for identity in identities:
            known = self._by_identity.get(identity)
            if known is not None and self._is_in_time(known):
                return known.caller
        return None

    def is_still_valid(self, caller: Caller) -> bool:
        """Whether the token of this caller is still valid."""
        known = self._by_id.get(caller.token_id)
        return known is not None and self._is_in_time(known)

    def _is_in_time(self, known: _Known) -> bool:
        return known.expires_at_ns is None or self._clock_ns() < known.expires_at_ns

    def _apply(self, token: Token, secret_sha256: bytes) -> None:
        self._any_was_created = True
        if token.revoked_at_ns is not None:
            gone = self._by_id.pop(token.id, None)
            if gone is not None and self._by_identity.get(gone.certificate_identity) is gone:
                del self._by_identity[gone.certificate_identity]
            return
        caller = Caller(token.name, token.role, token.scope, token.id)
        known = _Known(caller, secret_sha256, token.expires_at_ns, token.certificate_identity)
        self._by_id[token.id] = known
        if token.certificate_identity:
            self._by_identity[token.certificate_identity] = known


def token_invalid() -> Unauthenticated:
    return Unauthenticated(
        Reason.TOKEN_INVALID, "the token is not valid: it is unknown, revoked or expired"
    )
