"""The audit log: administrative changes, each with its caller and the state before and after.

The code that makes a change writes the entry in the same transaction, so every committed change has
an entry; a request that changes nothing or is rolled back has none. Rating, recording and uploading
calls are not administrative changes; the ledger covers them.

An entry shows a resource with the field names of the wire. It contains no secrets and no numbers of
extensions: these are personal data, and entries are never deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

from tollwire.service.cache.decks import tenant_not_found
from tollwire.service.domain import paging, scopes
from tollwire.service.domain.checks import check_id, check_period, check_text, refuse
from tollwire.service.domain.model import Page, Rate
from tollwire.service.domain.money import format_price
from tollwire.service.domain.record_model import AuditEntry, AuditFilter
from tollwire.service.domain.request import Scope
from tollwire.service.domain.thread_context import Work, current_request
from tollwire.service.storage import audit, tenants
from tollwire.service.storage.engine import Connection, Database

MAX_ACTION_CHARS = 100

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NS = 10**9
# The id of a rate version is shown as the etag.
_LEFT_OUT = ("number", "version_id", "rate_revision")


def enter(
    connection: Connection,
    *,
    action: str,
    resource: str,
    now_ns: int,
    tenant_id: int = 0,
    before: Any = None,
    after: Any = None,
) -> None:
    """Write an entry about a change by the caller of the current request.

    ``action``: the name of the method. ``resource``: kind and id, such as "rate/17".
    ``tenant_id``: the tenant concerned; 0: several, or none. ``before`` and ``after``: resources
    of the model, or mappings that describe the change.
    """
    request = current_request()
    audit.add(
        connection,
        AuditEntry(
            created_at_ns=now_ns,
            caller=request.caller.name,
            token_id=request.caller.token_id,
            request_id=request.id,
            action=action,
            tenant_id=tenant_id,
            resource=resource,
            before=as_json(before),
            after=as_json(after),
        ),
    )


def as_json(resource: Any) -> str:
    """Canonical JSON: equal states have equal texts. "" for None."""
    if resource is None:
        return ""
    return json.dumps(_plain(resource), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sole_tenant(scope: Scope) -> int:
    """The tenant of a scope with one tenant; 0 for several or all tenants."""
    (tenant_id, *others) = scope.tenant_ids or (0,)
    return 0 if others else tenant_id


class AuditLog:
    """Lists the audit log. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, wanted: AuditFilter, page_size: int, page_token: str) -> Page[AuditEntry]:
        """One page of the entries about tenants that the caller may see, the newest first. Only
        callers with every tenant see entries about several tenants or none. NotFound
        TENANT_NOT_FOUND if the tenant never existed or is outside the caller's scope. The entries
        of a deleted tenant are still listed."""
        refuse(
            [
                *check_id("tenant_id", wanted.tenant_id, required=False),
                *check_text("action", wanted.action, MAX_ACTION_CHARS),
                *check_period(wanted.created_after_ns, wanted.created_before_ns, "created"),
            ]
        )
        wanted = replace(wanted, within=scopes.within())
        size = paging.page_size(page_size)
        (before_id,) = paging.decode_token(page_token, wanted, (int,)) or (None,)
        with self._database.read(work=Work.LONG) as connection:
            if wanted.tenant_id:
                _require(connection, wanted.tenant_id)
            found = audit.page(connection, wanted, before_id, size + 1)
        return paging.cut(found, size, wanted, paging.by_id, _most_bytes)


def _require(connection: Connection, tenant_id: int) -> None:
    existed = tenants.existed(connection, tenant_id)
    if not (scopes.covers(tenant_id) and existed):
        raise tenant_not_found(tenant_id)


def _plain(value: Any) -> Any:
    """A value as plain JSON types, with the field names of the wire."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, IntEnum):
        return value.name
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if not is_dataclass(value):
        return value
    shown: dict[str, Any] = {}
    for field in fields(value):
        _show(shown, field.name, getattr(value, field.name))
    if isinstance(value, Rate):
        shown["etag"] = value.etag
    return shown


def _show(shown: dict[str, Any], name: str, value: Any) -> None:
    if value is None or name in _LEFT_OUT:
        return
    if isinstance(value, Scope):
        shown["every_tenant"] = value.tenant_ids is None
        shown["tenant_ids"] = sorted(value.tenant_ids or ())
    elif name.endswith("_e8"):
        shown[name.removesuffix("_e8")] = format_price(value)
    elif name.endswith("_ns"):
        shown[name.removesuffix("_ns")] = time_text(value)
    else:
        shown[name] = _plain(value)


def time_text(time_ns: int) -> str:
    """A time as in protobuf JSON, with 0, 3, 6 or 9 decimals: "2026-03-02T10:00:00.500Z"."""
    seconds, nanos = divmod(time_ns, _NS)
    text = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
    if not nanos:
        return f"{text}Z"
    digits = f"{nanos:09}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z"


def _most_bytes(entry: AuditEntry) -> int:
    """The maximum size of an entry in a response."""
    texts = (entry.caller, entry.request_id, entry.action, entry.resource, entry.before)
    return 100 + sum(4 * len(text) for text in (*texts, entry.after))
