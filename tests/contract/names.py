"""The names that clients rely on: services, methods, messages, fields, enum values.

A second, hand-written list. A name may be added to the protos without a change here; a renamed or
removed name breaks clients, and these tests.
"""

from __future__ import annotations

METHODS = {
    "RatingService": {
        "RateCall": ("call explain", "rated explanation"),
        "BatchRateCalls": ("calls", "rated"),
        "StreamRateCalls": ("stream calls", "stream rated"),
        "CreateRate": ("rate", "Rate"),
        "GetRate": ("id", "Rate"),
        "ListRates": ("tenant_id search page_size page_token", "rates next_page_token"),
        "UpdateRate": ("rate update_mask", "Rate"),
        "DeleteRate": ("id etag", "Empty"),
        "ImportRates": (
            "stream tenant_id mode dry_run rates rate_count",
            "created updated deleted unchanged rejected errors rate_revision",
        ),
        "ExportRates": ("tenant_id", "stream rates"),
    },
    "CdrService": {
        "CreateCdr": ("call", "Cdr"),
        "GetCdr": ("id", "Cdr"),
        "ExplainCdr": (
            "id tenant_id call_id",
            "cdr explanation differences unrated_steps ledger_entries replaces_cdr_id"
            " replaced_by_cdr_id",
        ),
        "ListCdrs": (
            "tenant_id search extension_id status started_after started_before page_size"
            " page_token unrated_reason call_id direction disposition extension_number reversed"
            " rate_id matched_prefix upload_id",
            "cdrs next_page_token",
        ),
        "UploadCdrs": (
            "stream upload_id offset calls control_totals",
            "stream upload_id committed_offset created duplicates conflicts rejected unrated"
            " failures settled_totals control_totals_match",
        ),
        "GetUpload": (
            "upload_id",
            "upload_id committed_offset created duplicates conflicts rejected unrated created_at"
            " updated_at duration_seconds control_totals control_totals_match reversed_at",
        ),
        "ListUploads": ("page_size page_token", "uploads next_page_token"),
        "ListUploadFailures": (
            "upload_id reason page_size page_token",
            "failures next_page_token",
        ),
        "RateUnrated": (
            "tenant_id started_after started_before",
            "examined rated still_unrated reason_corrected",
        ),
        "VerifyCdrs": (
            "tenant_id started_after started_before upload_id",
            "stream checked checked_per_second differences done different",
        ),
        "ExportCdrs": (
            "tenant_id search extension_id status started_after started_before unrated_reason"
            " call_id direction disposition extension_number reversed rate_id matched_prefix"
            " upload_id",
            "stream cdrs",
        ),
        "WatchCdrs": ("tenant_id cursor from_now follow", "stream cdrs cursor caught_up"),
        "SummarizeUsage": ("tenant_id started_after started_before group_by time_zone", "rows"),
        "ReverseCdr": ("id reason requested_by", "Reversal"),
        "ReverseUpload": ("upload_id reason requested_by", "cdrs reversed reversed_before"),
        "ReverseCdrs": (
            "tenant_id ids call_ids upload_id started_after started_before extension_id"
            " extension_number direction disposition status unrated_reason rate_id matched_prefix"
            " reason requested_by dry_run",
            "stream cdrs reversed reversed_before costs done",
        ),
        "ListReversals": (
            "tenant_id created_after created_before upload_id page_size page_token",
            "reversals next_page_token",
        ),
        "GetLedgerRoot": ("GetLedgerRootRequest", "LedgerRoot"),
        "VerifyLedger": (
            "root",
            "stream entries_checked rows_checked rows_per_second differences done",
        ),
    },
    "TenantService": {
        "CreateTenant": ("tenant", "Tenant"),
        "GetTenant": ("id", "Tenant"),
        "ListTenants": ("page_size page_token", "tenants next_page_token"),
        "UpdateTenant": ("tenant update_mask", "Tenant"),
        "DeleteTenant": ("id", "Empty"),
        "CreateExtension": ("extension", "Extension"),
        "GetExtension": ("id", "Extension"),
        "ListExtensions": ("tenant_id page_size page_token", "extensions next_page_token"),
        "UpdateExtension": ("extension update_mask", "Extension"),
        "DeleteExtension": ("id", "Empty"),
    },
    "AccessService": {
        "CreateToken": ("token", "token secret"),
        "GetToken": ("id", "Token"),
        "ListTokens": ("page_size page_token include_revoked", "tokens next_page_token"),
        "RevokeToken": ("id", "Token"),
        "ListAuditEntries": (
            "tenant_id action created_after created_before page_size page_token",
            "entries next_page_token",
        ),
    },
}

_CALL = (
    "tenant_id extension_id caller_number destination_number direction disposition"
    " duration_seconds started_at ended_at call_id"
)
MESSAGES = {
    "Tenant": "id name currency rounding cost_decimals country_code national_prefix"
    " international_prefix created_at",
    "Extension": "id tenant_id number name",
    "Token": "id name role tenant_ids every_tenant certificate_identity created_at created_by"
    " expires_at revoked_at",
    "AuditEntry": "id created_at caller token_id request_id action tenant_id resource before after",
    "Interval": "start_seconds cost_per_minute billing_increment",
    "Rate": "id tenant_id prefix destination cost_per_minute billing_increment connect_fee"
    " minimum_seconds intervals effective_from effective_to blocked etag created_at updated_at"
    " rate_revision",
    "Call": f"{_CALL} occurrence unreadable",
    "RatedCall": "call_id status unrated_reason bill_seconds cost rate_id matched_prefix"
    " destination cost_per_minute billing_increment rate_revision",
    "Cdr": f"id {_CALL} tenant extension status unrated_reason bill_seconds cost rate"
    " rate_revision upload_id created_at matched_prefix reversal generation replaces_cdr_id"
    " replaced_by_cdr_id",
    "Reversal": "id cdr cost reason requested_by created_at",
    "ReversedCost": "currency cdrs cost unrated",
    "ImportError": "index field message",
    "UploadFailure": "index call_id reason message",
    "ControlTotals": "calls duration_seconds",
    "FailedRecord": "index call_id reason message call created_at",
    "UsageRow": "keys calls answered duration_seconds bill_seconds cost unrated currency corrected",
    "UsageTotals": "calls answered duration_seconds bill_seconds cost unrated",
    "LedgerRoot": "root entries created_at",
    "LedgerEntry": "kind chain seq first_id row_count row_id digest hash created_at",
    "UnratedStep": "id unrated_reason rate_revision new_unrated_reason created_at",
    "LedgerDifference": "kind chain seq first_id row_count message",
}

ENUMS = {
    "Direction": "INBOUND OUTBOUND INTERNAL",
    "Disposition": "ANSWERED NO_ANSWER BUSY FAILED CANCELLED CONGESTION",
    "RatingStatus": "RATED NOT_BILLABLE UNRATED",
    "UnratedReason": "NO_RATE BLOCKED INVALID_NUMBER",
    "Rounding": "HALF_UP HALF_EVEN UP DOWN",
    "ImportMode": "MERGE REPLACE",
    "UsageDimension": "TENANT EXTENSION DESTINATION DIRECTION DISPOSITION DAY HOUR MONTH"
    " UNRATED_REASON",
    "Role": "RATER INGEST READER OPERATOR ADMIN",
    "LedgerEntryKind": "RECORDED PRICED REVERSED",
    "LedgerDifferenceKind": "CHAIN ROWS NOT_ENTERED ROOT TRIGGER TIME",
}
