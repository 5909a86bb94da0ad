"""The table of the role and the scope that each RPC needs.

The server does not start if an RPC is missing here. The check runs before the request's message is
read. The subjects narrow requests to the caller's tenants; this table only defines whether a scope
of some tenants is enough. Must not depend on tokens: the caller is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from tollwire.service.domain.errors import Forbidden, Reason
from tollwire.service.domain.request import Caller, Role


class Needs(Enum):
    """The scope that a caller needs."""

    # No caller is identified.
    NOTHING = 0
    # The response is the same for all callers: it contains no data of any tenant.
    A_CALLER = 1
    # The request is narrowed to the tenants of the caller.
    TENANTS = 2
    # The subject cannot be divided by tenant, or the RPC creates and deletes tenants.
    EVERY_TENANT = 3


@dataclass(frozen=True, slots=True)
class Permission:
    """One row of the table."""

    roles: frozenset[Role]
    needs: Needs


_ALL = frozenset(Role)
_RATING = frozenset({Role.RATER, Role.OPERATOR, Role.ADMIN})
_INGEST = frozenset({Role.INGEST, Role.OPERATOR, Role.ADMIN})
_READING = frozenset({Role.READER, Role.OPERATOR, Role.ADMIN})
# A sender must see where to resume and what was not recorded.
_UPLOADS = _INGEST | _READING
_OPERATION = frozenset({Role.OPERATOR, Role.ADMIN})
_ADMINISTRATION = frozenset({Role.ADMIN})


def _rows(
    needs: Needs, roles: frozenset[Role], service: str, methods: str
) -> dict[str, Permission]:
    return {f"{service}/{method}": Permission(roles, needs) for method in methods.split()}


PERMISSIONS: Mapping[str, Permission] = MappingProxyType(
    _rows(Needs.NOTHING, _ALL, "Health", "Check List Watch")
    | _rows(Needs.A_CALLER, _ALL, "ServerReflection", "ServerReflectionInfo")
    #
    | _rows(Needs.TENANTS, _RATING, "RatingService", "RateCall BatchRateCalls StreamRateCalls")
    | _rows(Needs.TENANTS, _READING, "RatingService", "GetRate ListRates ExportRates")
    | _rows(
        Needs.TENANTS,
        _OPERATION,
        "RatingService",
        "CreateRate UpdateRate DeleteRate ImportRates",
    )
    #
    | _rows(Needs.TENANTS, _INGEST, "CdrService", "CreateCdr UploadCdrs")
    | _rows(Needs.TENANTS, _UPLOADS, "CdrService", "GetUpload ListUploads ListUploadFailures")
    | _rows(
        Needs.TENANTS,
        _READING,
        "CdrService",
        "GetCdr ExplainCdr ListCdrs ExportCdrs WatchCdrs SummarizeUsage VerifyCdrs ListReversals",
    )
    | _rows(
        Needs.TENANTS,
        _OPERATION,
        "CdrService",
        "RateUnrated ReverseCdr ReverseCdrs ReverseUpload",
    )
    # The ledger chains the entries of all tenants; a part of it proves nothing.
    | _rows(Needs.EVERY_TENANT, _READING, "CdrService", "GetLedgerRoot VerifyLedger")
    #
    | _rows(
        Needs.TENANTS,
        _READING,
        "TenantService",
        "GetTenant ListTenants GetExtension ListExtensions",
    )
    | _rows(
        Needs.TENANTS,
        _OPERATION,
        "TenantService",
        "UpdateTenant CreateExtension UpdateExtension DeleteExtension",
    )
    | _rows(Needs.EVERY_TENANT, _OPERATION, "TenantService", "CreateTenant DeleteTenant")
    #
    | _rows(
        Needs.TENANTS,
        _ADMINISTRATION,
        "AccessService",
        "CreateToken GetToken ListTokens RevokeToken ListAuditEntries",
    )
)


def permission(method: str) -> Permission:
    """The row of a method such as "CdrService/GetCdr". LookupError if there is none."""
    try:
        return PERMISSIONS[method]
    except KeyError:
        raise LookupError(
            f"{method} cannot be served: service/rpc/permissions.py has no row for it"
        ) from None


def check(caller: Caller, method: str) -> None:
    """Forbidden ROLE_LACKS or SCOPE_LACKS if the caller may not call this method."""
    row = PERMISSIONS[method]
    if caller.role not in row.roles:
        raise Forbidden(
            Reason.ROLE_LACKS,
            f"the role {caller.role} may not call {method}",
            metadata={"role": caller.role.value, "method": method},
        )
    if row.needs is Needs.EVERY_TENANT and caller.scope.tenant_ids is not None:
        raise Forbidden(
            Reason.SCOPE_LACKS,
            f"{method} is for callers whose scope is every tenant",
            metadata={"method": method},
        )
