"""Tenants and their extensions.

A tenant's rules (dialling, rounding of costs) determine how its calls are rated. So each change of
a tenant is a change of its deck and is stored in its history: a CDR shows the tenant as it was when
the call was rated (rating rule 9).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from tollwire.service.accounts import audit
from tollwire.service.cache.decks import Decks, tenant_not_found
from tollwire.service.domain import paging, scopes
from tollwire.service.domain.checks import check_id, check_text, refuse
from tollwire.service.domain.errors import (
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    NotFound,
    Reason,
    invalid_field,
)
from tollwire.service.domain.model import (
    MAX_COST_DECIMALS,
    MAX_EXTENSION_NUMBER_CHARS,
    MAX_NAME_CHARS,
    MIN_COST_DECIMALS,
    Extension,
    Page,
    Tenant,
)
from tollwire.service.domain.money import CURRENCIES
from tollwire.service.domain.thread_context import current_request
from tollwire.service.storage import decks, ids, rates, tenants
from tollwire.service.storage.engine import Connection, Database

_MAX_COUNTRY_CODE_DIGITS = 4
_MAX_PREFIX_DIGITS = 8
_DIGITS = re.compile("[0-9]*")


def check_tenant(tenant: Tenant) -> list[FieldViolation]:
    """The violations of a tenant, with field paths from the tenant."""
    found = [
        *check_id("id", tenant.id, required=False),
        *check_text("name", tenant.name, MAX_NAME_CHARS),
        *_check_digits("country_code", tenant.country_code, _MAX_COUNTRY_CODE_DIGITS),
        *_check_digits("national_prefix", tenant.national_prefix, _MAX_PREFIX_DIGITS),
        *_check_digits("international_prefix", tenant.international_prefix, _MAX_PREFIX_DIGITS),
    ]
    if tenant.currency not in CURRENCIES:
        found.append(
            FieldViolation(
                "currency",
                "must be an active ISO 4217 code in upper case, such as USD;"
                f" got {tenant.currency[:10]!r}",
            )
        )
    if not MIN_COST_DECIMALS <= tenant.cost_decimals <= MAX_COST_DECIMALS:
        found.append(
            FieldViolation(
                "cost_decimals",
                f"must be {MIN_COST_DECIMALS} to {MAX_COST_DECIMALS}, or 0 for"
                f" {MIN_COST_DECIMALS}; got {tenant.cost_decimals}",
            )
        )
    if tenant.national_prefix and not tenant.country_code:
        found.append(FieldViolation("country_code", "is required if there is a national_prefix"))
    return found


def check_extension(extension: Extension) -> list[FieldViolation]:
    """The violations of an extension, with field paths from the extension."""
    return [
        *check_id("id", extension.id, required=False),
        *check_id("tenant_id", extension.tenant_id),
        *check_text("number", extension.number, MAX_EXTENSION_NUMBER_CHARS, required=True),
        *check_text("name", extension.name, MAX_NAME_CHARS),
    ]


def _check_digits(field: str, text: str, max_digits: int) -> Iterator[FieldViolation]:
    if len(text) > max_digits or not _DIGITS.fullmatch(text):
        yield FieldViolation(field, f"must be up to {max_digits} digits, got {text[:40]!r}")


class Tenants:
    """Manages tenants and extensions. Thread-safe."""

    def __init__(
        self, database: Database, decks: Decks, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._database = database
        self._decks = decks
        self._clock_ns = clock_ns

    def create(self, tenant: Tenant) -> Tenant:
        """Create a tenant; id 0: the database chooses one. AlreadyExists TENANT_EXISTS if the id is
        taken."""
        refuse(check_tenant(tenant), "tenant.")
        tenant = replace(tenant, created_at_ns=self._clock_ns())
        with self._database.write() as connection:
            if tenant.id:
                ids.move_past(connection, "tenants", tenant.id)
            else:
                tenant = replace(tenant, id=ids.take(connection, "tenants"))
            if not tenants.add(connection, tenant):
                raise AlreadyExists(
                    Reason.TENANT_EXISTS,
                    f"there is a tenant {tenant.id} already",
                    metadata={"tenant_id": str(tenant.id)},
                )
            _enter(connection, "CreateTenant", tenant.created_at_ns, None, tenant)
            revision = decks.create(connection, tenant.id) + 1
            tenants.add_version(connection, tenant, revision, tenant.created_at_ns)
            decks.advance(connection, tenant.id, revision)
        self._decks.refresh_after_commit()
        current_request().leaves_rates_at(revision)
        return tenant

    def get(self, tenant_id: int) -> Tenant:
        refuse(check_id("id", tenant_id))
        with self._database.read() as connection:
            tenant = tenants.get(connection, tenant_id)
        if tenant is None or not scopes.covers(tenant_id):
            raise tenant_not_found(tenant_id)
        return tenant

    def list(self, page_size: int, page_token: str) -> Page[Tenant]:
        """One page of the tenants that the caller may see, by ascending id."""
        size = paging.page_size(page_size)
        wanted = ("tenants", scopes.within())
        (after_id,) = paging.decode_token(page_token, wanted, (int,)) or (0,)
        with self._database.read() as connection:
            found = tenants.page(connection, after_id, size + 1, scopes.within())
        return paging.cut(found, size, wanted, paging.by_id)

    def update(self, tenant: Tenant, fields: frozenset[str]) -> Tenant:
        """Set ``fields`` to the values in ``tenant``. Applies to calls that are rated from now on.

        FailedPrecondition CURRENCY_IN_USE if the currency would change and the tenant has CDRs.
        """
        refuse(check_id("id", tenant.id), "tenant.")
        with self._database.write() as connection:
            # Wait for calls that are being recorded only if the change is likely to succeed.
            from_calls = "currency" in fields and not tenants.has_cdrs(connection, tenant.id)
            revision, present = self._lock(connection, tenant.id, from_calls=from_calls)
            changed = replace(present, **{name: getattr(tenant, name) for name in fields})
            refuse(check_tenant(changed), "tenant.")
            if changed == present:
                current_request().leaves_rates_at(revision)
                return present
            if changed.currency != present.currency and tenants.has_cdrs(connection, tenant.id):
                raise FailedPrecondition(
                    Reason.CURRENCY_IN_USE,
                    f"tenant {tenant.id} has CDRs in {present.currency}; create another tenant for"
                    f" {changed.currency}",
                    metadata={"tenant_id": str(tenant.id), "currency": present.currency},
                )
            now_ns = self._clock_ns()
            tenants.change(connection, changed)
            _enter(connection, "UpdateTenant", now_ns, present, changed)
            tenants.add_version(connection, changed, revision + 1, now_ns)
            decks.advance(connection, tenant.id, revision + 1)
        self._decks.refresh_after_commit()
        current_request().leaves_rates_at(revision + 1)
        return changed

    def delete(self, tenant_id: int) -> None:
        """Delete a tenant with its rates and extensions. FailedPrecondition TENANT_IN_USE if CDRs
        refer to it."""
        refuse(check_id("id", tenant_id))
        with self._database.write() as connection:
            from_calls = not tenants.has_cdrs(connection, tenant_id)
            revision, present = self._lock(connection, tenant_id, from_calls=from_calls)
            if tenants.has_cdrs(connection, tenant_id) or not tenants.remove(connection, tenant_id):
                raise FailedPrecondition(
                    Reason.TENANT_IN_USE,
                    f"CDRs refer to tenant {tenant_id}, so it cannot be deleted",
                    metadata={"tenant_id": str(tenant_id)},
                )
            now_ns = self._clock_ns()
            rates.retire_all(connection, tenant_id, revision + 1, now_ns)
            _enter(connection, "DeleteTenant", now_ns, present, None)
            decks.advance(connection, tenant_id, revision + 1)
        self._decks.refresh_after_commit()
        current_request().leaves_rates_at(revision + 1)

    def create_extension(self, extension: Extension) -> Extension:
        """Create an extension; id 0: the database chooses one. AlreadyExists EXTENSION_EXISTS if
        the id is taken. Only callers with every tenant may choose an id: whether it is taken
        reveals the extensions of other tenants."""
        refuse([*check_extension(extension), *_check_chosen(extension.id)], "extension.")
        owner_id = extension.tenant_id
        with self._database.write() as connection:
            if not (scopes.covers(owner_id) and tenants.keep(connection, owner_id)):
                raise tenant_not_found(extension.tenant_id)
            if extension.id:
                ids.move_past(connection, "extensions", extension.id)
            else:
                extension = replace(extension, id=ids.take(connection, "extensions"))
            if not tenants.add_extension(connection, extension):
                raise AlreadyExists(
                    Reason.EXTENSION_EXISTS,
                    f"there is an extension {extension.id} already",
                    metadata={"extension_id": str(extension.id)},
                )
            _enter(connection, "CreateExtension", self._clock_ns(), None, extension)
        return extension

    def get_extension(self, extension_id: int) -> Extension:
        refuse(check_id("id", extension_id))
        with self._database.read() as connection:
            extension = tenants.get_extension(connection, extension_id)
        if extension is None or not scopes.covers(extension.tenant_id):
            raise _extension_not_found(extension_id)
        return extension

    def list_extensions(self, tenant_id: int, page_size: int, page_token: str) -> Page[Extension]:
        """One page, by ascending id. ``tenant_id`` 0: all tenants that the caller may see. NotFound
        TENANT_NOT_FOUND."""
        refuse(check_id("tenant_id", tenant_id, required=False))
        size = paging.page_size(page_size)
        wanted = ("extensions", tenant_id, scopes.within())
        (after_id,) = paging.decode_token(page_token, wanted, (int,)) or (0,)
        with self._database.read() as connection:
            require_tenant(connection, tenant_id)
            found = tenants.page_extensions(
                connection, tenant_id, after_id, size + 1, scopes.within()
            )
        return paging.cut(found, size, wanted, paging.by_id)

    def update_extension(self, extension: Extension, fields: frozenset[str]) -> Extension:
        """Set ``fields`` to the values in ``extension``. Its tenant_id must be 0 or the owner's."""
        refuse(check_id("id", extension.id), "extension.")
        with self._database.write() as connection:
            present = tenants.lock_extension(connection, extension.id, scopes.within())
            if present is None:
                raise _extension_not_found(extension.id)
            if extension.tenant_id not in (0, present.tenant_id):
                raise invalid_field(
                    "extension.tenant_id",
                    f"must be 0 or the owner's, {present.tenant_id}; got {extension.tenant_id}",
                )
            changed = replace(present, **{name: getattr(extension, name) for name in fields})
            refuse(check_extension(changed), "extension.")
            if changed != present:
                tenants.change_extension(connection, changed)
                _enter(connection, "UpdateExtension", self._clock_ns(), present, changed)
        return changed

    def delete_extension(self, extension_id: int) -> None:
        """FailedPrecondition EXTENSION_IN_USE if CDRs refer to the extension."""
        refuse(check_id("id", extension_id))
        with self._database.write() as connection:
            present = tenants.lock_extension(
                connection,
                extension_id,
                scopes.within(),
                from_calls=not tenants.extension_has_cdrs(connection, extension_id),
            )
            if present is None:
                raise _extension_not_found(extension_id)
            if tenants.extension_has_cdrs(connection, extension_id) or not tenants.remove_extension(
                connection, extension_id
            ):
                raise FailedPrecondition(
                    Reason.EXTENSION_IN_USE,
                    f"CDRs refer to extension {extension_id}, so it cannot be deleted",
                    metadata={"extension_id": str(extension_id)},
                )
            _enter(connection, "DeleteExtension", self._clock_ns(), present, None)

    def _lock(
        self, connection: Connection, tenant_id: int, *, from_calls: bool
    ) -> tuple[int, Tenant]:
        """The revision of a tenant's deck and the tenant, both locked."""
        if not scopes.covers(tenant_id):
            raise tenant_not_found(tenant_id)
        revision = decks.lock(connection, tenant_id)
        tenant = tenants.lock(connection, tenant_id, from_calls=from_calls)
        if revision is None or tenant is None:
            raise tenant_not_found(tenant_id)
        return revision, tenant


def tenant_exists(connection: Connection, tenant_id: int) -> bool:
    """Whether the tenant exists and the caller may see it."""
    return tenants.get(connection, tenant_id) is not None and scopes.covers(tenant_id)


def require_tenant(connection: Connection, tenant_id: int) -> None:
    """Check the tenant of a filter; 0: all tenants. NotFound TENANT_NOT_FOUND if the tenant does
    not exist or is outside the caller's scope: a mistyped id must not look like a tenant without
    calls."""
    if tenant_id and not tenant_exists(connection, tenant_id):
        raise tenant_not_found(tenant_id)


def require_extension(connection: Connection, extension_id: int, tenant_id: int) -> None:
    """Check the extension of a filter, which must belong to ``tenant_id`` unless that is 0.
    NotFound EXTENSION_NOT_FOUND."""
    if not extension_id:
        return
    extension = tenants.get_extension(connection, extension_id)
    if (
        extension is None
        or not scopes.covers(extension.tenant_id)
        or tenant_id not in (0, extension.tenant_id)
    ):
        raise _extension_not_found(extension_id)


def _enter(
    connection: Connection,
    action: str,
    now_ns: int,
    before: Tenant | Extension | None,
    after: Tenant | Extension | None,
) -> None:
    """Write an entry to the audit log."""
    one = after or before
    assert one is not None
    if isinstance(one, Tenant):
        resource, tenant_id = f"tenant/{one.id}", one.id
    else:
        resource, tenant_id = f"extension/{one.id}", one.tenant_id
    audit.enter(
        connection,
        action=action,
        resource=resource,
        now_ns=now_ns,
        tenant_id=tenant_id,
        before=before,
        after=after,
    )


def _check_chosen(extension_id: int) -> Iterator[FieldViolation]:
    if extension_id and scopes.within() is not None:
        yield FieldViolation("id", "must be 0 unless the caller's scope is every tenant")


def _extension_not_found(extension_id: int) -> NotFound:
    return NotFound(
        Reason.EXTENSION_NOT_FOUND,
        f"there is no extension {extension_id}",
        metadata={"extension_id": str(extension_id)},
    )
