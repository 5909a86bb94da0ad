"""What the caller of the present request may see: of all tenants, or of those that a token names.

Every subject asks here, and answers about a tenant outside the scope what it answers about one that
does not exist: the same failure in the same words, found in the same place. So nothing tells a
caller that the other is there.

Lists are narrowed in the database (service/storage/owners.py), everything else as soon as it is
known whose it is, and before it is waited for: a lock that others hold would tell as well.
"""

from __future__ import annotations

from collections.abc import Iterable

from tollwire.service.domain.request import Scope
from tollwire.service.domain.thread_context import current_request


def scope() -> Scope:
    """The tenants that the caller may see."""
    return current_request().caller.scope


def covers(tenant_id: int) -> bool:
    """Whether the caller may see the tenant, if it is there."""
    request = current_request()
    request.concerns(tenant_id)
    return request.caller.scope.covers(tenant_id)


def concerns(tenant_ids: Iterable[int]) -> None:
    """Note down for the log whom the request is about."""
    request = current_request()
    for tenant_id in tenant_ids:
        request.concerns(tenant_id)


def within() -> tuple[int, ...] | None:
    """What lists are narrowed to: the tenants that the caller may see, by rising id; None: all."""
    tenant_ids = current_request().caller.scope.tenant_ids
    return None if tenant_ids is None else tuple(sorted(tenant_ids))
