"""Authentication and authorisation of RPCs: the ``identify`` of an RpcPipeline.

A caller sends a token ("authorization: Bearer tw_…"), or has a client certificate that a token
names; a token takes precedence over the certificate. On an open server a caller without both is
LOCAL, which may call every RPC. A server that is open only without tokens is closed by the first
token, for good: if it opened again when the last token expires or is revoked, nobody would notice.
Health needs no token.

service/accounts/credentials.py finds the caller of a token; permissions.py has the RPCs of a role.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tollwire.service.accounts.credentials import Credentials, token_invalid
from tollwire.service.domain.errors import Reason, Unauthenticated
from tollwire.service.domain.request import LOCAL, NOBODY, Caller
from tollwire.service.rpc.call import RpcCall
from tollwire.service.rpc.permissions import PERMISSIONS, Needs, check
from tollwire.service.rpc.pipeline import RpcContext

_HEADER = "authorization"
_SCHEME = "bearer "
_OPEN_METHODS = frozenset(
    method for method, row in PERMISSIONS.items() if row.needs is Needs.NOTHING
)
# Longer than any token. A longer header is not read.
_MAX_HEADER_CHARS = 200

_LOG = logging.getLogger("tollwire.rpc")


class AccessControl:
    """Identifies the callers of one server. Thread-safe."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        is_open: bool,
        until_tokens: bool = False,
        takes_certificates: bool = False,
        identified: Callable[[str], None] | None = None,
    ) -> None:
        """``is_open``: a caller without a token may do everything; with ``until_tokens`` only until
        the first token is created. ``takes_certificates``: clients can have a certificate, which
        the transport has verified. ``identified`` is called with the peer of each identified
        caller."""
        self._identified = identified
        self._credentials = credentials
        self._is_open = is_open
        self._until_tokens = until_tokens
        self._takes_certificates = takes_certificates

    def is_open(self) -> bool:
        """Whether a caller without a token may do everything at this moment."""
        if self._is_open and self._until_tokens and self._credentials.any_was_created:
            self._is_open = False
            _LOG.warning("the database has a token: requests without one are refused from now on")
        return self._is_open

    def __call__(self, rpc: RpcContext) -> Caller:
        """The caller. Unauthenticated TOKEN_REQUIRED or TOKEN_INVALID; Forbidden."""
        if rpc.method in _OPEN_METHODS:
            return NOBODY
        caller = self._caller(rpc.call)
        if self._identified is not None:
            self._identified(rpc.call.peer())
        check(caller, rpc.method)
        return caller

    def check_again(self, rpc: RpcContext) -> None:
        """Check a running stream again. Unauthenticated TOKEN_INVALID if the caller's token was
        revoked or has expired since."""
        caller = rpc.request.caller
        if caller.token_id and not self._credentials.is_still_valid(caller):
            raise token_invalid()

    def _caller(self, call: RpcCall) -> Caller:
        sent = [value for key, value in call.metadata if key == _HEADER]
        if sent:
            return self._credentials.of_token(_token(sent))
        if self._takes_certificates:
            caller = self._credentials.of_certificate(call.identities())
            if caller is not None:
                return caller
        if self.is_open():
            return LOCAL
        raise Unauthenticated(
            Reason.TOKEN_REQUIRED,
            'this server needs a token with each request: "authorization: Bearer tw_…"',
        )


def _token(sent: Sequence[str | bytes]) -> str:
    """The token in the headers; "" if there is none or more than one."""
    header = sent[0] if len(sent) == 1 else ""
    if not isinstance(header, str) or len(header) > _MAX_HEADER_CHARS:
        return ""
    is_bearer = header[: len(_SCHEME)].lower() == _SCHEME
    return header[len(_SCHEME) :].strip() if is_bearer else ""
