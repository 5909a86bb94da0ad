"""What is asked, by whom, and until when anybody waits: the request that a thread works on.

Whoever takes requests in says so by ``handling``; whoever must know asks for ``present``, so that
nothing on the way has to hand it on. A thread that works on no request, as those of the service
itself do, works for LOCAL, who may do and see everything.

Knows no gRPC, no token and no table: only names, roles and scopes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a caller may do; which RPCs that is stands in service/rpc/permissions.py."""

    RATER = "rater"
    INGEST = "ingest"
    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Scope:
    """The tenants that a caller may see. Those outside it do not exist for the caller."""

    tenant_ids: frozenset[int] | None = None  # None: all, also those to come

    def covers(self, tenant_id: int) -> bool:
        return self.tenant_ids is None or tenant_id in self.tenant_ids

    def covers_all_of(self, other: Scope) -> bool:
        if self.tenant_ids is None:
            return True
        return other.tenant_ids is not None and other.tenant_ids <= self.tenant_ids


EVERY_TENANT = Scope()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``token_id`` 0: nobody with a token, but whoever can reach this machine."""

    name: str
    role: Role
    scope: Scope
    token_id: int = 0


LOCAL = Caller("local", Role.ADMIN, EVERY_TENANT)
# Who asks for what is answered whoever asks.
NOBODY = Caller("nobody", Role.READER, Scope(frozenset()))


# A request's tenant_id where it is about more than one.
SEVERAL = -1


def _forever() -> float | None:
    return None


def _always() -> bool:
    return True


@dataclass(slots=True)
class Request:
    """One request in work.

    ``remaining_seconds`` says how long its client will wait, None for without end; ``is_wanted``
    whether the client still does. ``tenant_id`` is the tenant whom it is about, as soon as that is
    known; 0 for none, SEVERAL for more than one. ``rate_revision`` is that of a tenant's deck after
    what the request has changed in it; 0: the request has changed none. ``id`` names the request
    in logs; empty: nobody asked, and the request is the same for all threads of the service itself.
    """

    caller: Caller = LOCAL
    id: str = ""
    remaining_seconds: Callable[[], float | None] = _forever
    is_wanted: Callable[[], bool] = _always
    tenant_id: int = 0
    rate_revision: int = 0

    def concerns(self, tenant_id: int) -> None:
        """Note down whom it is about."""
        if self.id and tenant_id != self.tenant_id:
            self.tenant_id = SEVERAL if self.tenant_id else tenant_id

    def leaves_rates_at(self, revision: int) -> None:
        """Note down the revision of the deck that the request is about, for the client."""
        if self.id:
            self.rate_revision = revision


class _Present(threading.local):
    request = Request()


_PRESENT = _Present()


def present() -> Request:
    """The request that this thread works on."""
    return _PRESENT.request


@contextmanager
def handling(request: Request) -> Iterator[None]:
    """The block works on this request."""
    before = _PRESENT.request
    _PRESENT.request = request
    try:
        yield
    finally:
        _PRESENT.request = before
