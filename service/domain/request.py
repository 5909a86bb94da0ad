"""A request: its caller, the tenants that the caller may see, and the time that the client waits.

thread_context.py has the request that a thread works on. Must not depend on gRPC, tokens or tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a caller may do. service/rpc/permissions.py lists the RPCs of each role."""

    RATER = "rater"
    INGEST = "ingest"
    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Scope:
    """The tenants that a caller may see. Those outside it do not exist for the caller."""

    tenant_ids: frozenset[int] | None = None  # None: all, also future ones

    def covers(self, tenant_id: int) -> bool:
        return self.tenant_ids is None or tenant_id in self.tenant_ids

    def covers_all_of(self, other: Scope) -> bool:
        if self.tenant_ids is None:
            return True
        return other.tenant_ids is not None and other.tenant_ids <= self.tenant_ids


EVERY_TENANT = Scope()


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of a request. ``token_id`` 0: a caller without a token."""

    name: str
    role: Role
    scope: Scope
    token_id: int = 0


LOCAL = Caller("local", Role.ADMIN, EVERY_TENANT)
# The caller of an RPC that needs no permission.
NOBODY = Caller("nobody", Role.READER, Scope(frozenset()))


# The tenant_id of a request about more than one tenant.
SEVERAL = -1


def _forever() -> float | None:
    return None


def _always() -> bool:
    return True


@dataclass(slots=True)
class Request:
    """One request in progress.

    ``remaining_seconds`` returns the time that the client still waits, None for no limit;
    ``is_wanted`` returns whether the client still waits. ``tenant_id``: the tenant that the request
    is about; 0: none or not known yet; SEVERAL: more than one. ``rate_revision``: the revision of
    the deck that the request has changed; 0: none. ``id``: the id in logs; empty for the request
    that the service's own threads share.
    """

    caller: Caller = LOCAL
    id: str = ""
    remaining_seconds: Callable[[], float | None] = _forever
    is_wanted: Callable[[], bool] = _always
    tenant_id: int = 0
    rate_revision: int = 0

    def concerns(self, tenant_id: int) -> None:
        """Record the tenant that the request is about."""
        if self.id and tenant_id != self.tenant_id:
            self.tenant_id = SEVERAL if self.tenant_id else tenant_id

    def leaves_rates_at(self, revision: int) -> None:
        """Record the revision of the changed deck, for the client."""
        if self.id:
            self.rate_revision = revision
