"""Who asks: the callers for whom tokens and certificates stand.

Every worker has one ``Credentials``, with all tokens that are not revoked in memory, kept equal to
what is committed (tollwire.service.storage.tokens). While the database is away the last state
counts. Expiry is looked at each time.

A token's text is "tw_", its id, "_" and 43 characters of base64url: 256 random bits, of which the
SHA-256 is kept. A secret that nobody chose cannot be guessed from its digest, so nothing slower is
needed. Whether an id is known cannot be told from the time that the answer takes: the same is
hashed and compared, in constant time, for each text.

Knows no gRPC: texts and identities are handed in.
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
from tollwire.service.storage import tokens as storage
from tollwire.service.storage.change_follower import ChangeFollower
from tollwire.service.storage.engine import Database

_LOG = logging.getLogger("tollwire.tokens")

_SECRET_BYTES = 32
_TEXT = re.compile(r"tw_([1-9][0-9]{0,18})_([A-Za-z0-9_-]{43})")


def new_secret() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


def digest(secret: str) -> bytes:
    """What is kept of a secret."""
    return sha256(secret.encode()).digest()


def text_of(token_id: int, secret: str) -> str:
    """What the holder of a token sends."""
    return f"tw_{token_id}_{secret}"


@dataclass(frozen=True, slots=True)
class _Known:
    """A token that is not revoked."""

    caller: Caller
    secret_sha256: bytes
    expires_at_ns: int | None
    certificate_identity: str


class Credentials:
    """All that lets callers in. Thread-safe.

    ``load`` before the first use; ``follow`` to keep up with other workers; ``close`` at the end.
    """

    def __init__(self, database: Database, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock_ns = clock_ns
        self._by_id: dict[int, _Known] = {}
        self._by_identity: dict[str, _Known] = {}
        # Stands in for a token that is not there: no text has this digest.
        self._nobody = secrets.token_bytes(_SECRET_BYTES)
        self._known_seq = 0
        self._reading = threading.Lock()
        self._follower = ChangeFollower(
            database,
            storage.CLOCK,
            what="changes of tokens",
            log=_LOG,
            known_seq=lambda: self._known_seq,
            refresh=self.load,
        )

    def __len__(self) -> int:
        return len(self._by_id)

    def load(self) -> None:
        """Catch up with everything that is committed."""
        with self._reading, self._database.read(work=Work.LOOK) as connection:
            # First: what is committed while the tokens are read is looked for again.
            seq = storage.change_seq(connection)
            for token, secret_sha256 in storage.changed_since(connection, self._known_seq):
                self._apply(token, secret_sha256)
            self._known_seq = seq

    def load_after_commit(self) -> None:
        """As ``load``, for who has just committed a change: that it is written is true even if it
        cannot be read back now, and the follower will."""
        try:
            self.load()
        except Unavailable:
            _LOG.warning("a change of tokens is committed, but cannot be read back yet")

    def follow(self) -> None:
        """Start to watch for the changes of other workers, in a thread of its own."""
        self._follower.start()

    def close(self) -> None:
        """Stop to follow. A database that does not answer delays it by seconds at most."""
        self._follower.close()

    def of_token(self, text: str) -> Caller:
        """The caller who sent this token. Unauthenticated TOKEN_INVALID where it is none: not what
        is wrong with it."""
        match = _TEXT.fullmatch(text)
        token_id, secret = (int(match[1]), match[2]) if match else (0, text)
        known = self._by_id.get(token_id)
        kept = self._nobody if known is None else known.secret_sha256
        is_right = compare_digest(digest(secret), kept)
        if known is None or not is_right or not self._is_in_time(known):
            raise token_invalid()
        return known.caller

    def of_certificate(self, identities: Iterable[str]) -> Caller | None:
        """The caller for whom a certificate stands that carries these identities: of the first one
        that a token has. None where no token has any of them."""
        for identity in identities:
            known = self._by_identity.get(identity)
            if known is not None and self._is_in_time(known):
                return known.caller
        return None

    def is_still(self, caller: Caller) -> bool:
        """Whether what let this caller in would do so again."""
        known = self._by_id.get(caller.token_id)
        return known is not None and self._is_in_time(known)

    def _is_in_time(self, known: _Known) -> bool:
        return known.expires_at_ns is None or self._clock_ns() < known.expires_at_ns

    def _apply(self, token: Token, secret_sha256: bytes) -> None:
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
        Reason.TOKEN_INVALID, "the token is not valid: unknown, wrong, revoked or expired"
    )
