"""Which role each RPC needs, and how much its caller must be allowed to see: one table.

An RPC that is missing here cannot be served: the server does not start. What the table says is
decided before the request's message is read. That callers see no more than their tenants is the
subjects' part: here it only stands whether some tenants are enough.

Knows no token: who asks is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from tollwire.service.domain.errors import Forbidden, Reason
from tollwire.service.domain.request import Caller, Role


class Needs(Enum):
    """What a caller's scope must be."""

    # Nobody is asked who they are.
    NOTHING = 0
    # The answer is the same for all who belong here: it holds nothing of any tenant.
    A_CALLER = 1
    # The request is narrowed to the caller's tenants, however many these are.
    TENANTS = 2
    # What is asked about cannot be cut by tenants, or makes and ends them.
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
    """The row of a method such as "CdrService/GetCdr". LookupError where there is none."""
    try:
        return PERMISSIONS[method]
    except KeyError:
        raise LookupError(
            f"{method} cannot be served: service/rpc/permissions.py does not say who may call it"
        ) from None


def check(caller: Caller, method: str) -> None:
    """Forbidden ROLE_LACKS or SCOPE_LACKS where the caller may not call this method."""
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
