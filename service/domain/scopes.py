"""The tenants that the caller of the current request may see: all, or those of its token.

Every subject uses this module, and treats a tenant outside the scope like one that does not exist:
the same error with the same message from the same code. So a caller cannot find out that other
tenants exist.

Lists are narrowed in the database (service/storage/owners.py). Other requests are checked as soon
as the tenant is known and before any wait for a lock: the wait would also reveal the tenant.
"""

from __future__ import annotations

from collections.abc import Iterable

from tollwire.service.domain.request import Scope
from tollwire.service.domain.thread_context import current_request


def scope() -> Scope:
    """The tenants that the caller may see."""
    return current_request().caller.scope


def covers(tenant_id: int) -> bool:
    """Whether the tenant is in the caller's scope."""
    request = current_request()
    request.concerns(tenant_id)
    return request.caller.scope.covers(tenant_id)


def concerns(tenant_ids: Iterable[int]) -> None:
    """Record the tenants that the request is about, for the log."""
    request = current_request()
    for tenant_id in tenant_ids:
        request.concerns(tenant_id)


def within() -> tuple[int, ...] | None:
    """The tenants to which lists are narrowed, by ascending id; None: all tenants."""
    tenant_ids = current_request().caller.scope.tenant_ids
    return None if tenant_ids is None else tuple(sorted(tenant_ids))
