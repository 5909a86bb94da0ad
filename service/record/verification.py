"""Verification: recomputes stored costs, each from the rate version of its CDR.

The rating core recomputes the costs (ratingcore/record/verification.pyx) and returns the CDRs that
differ. This module reads the CDRs in parts, fetches the rates and rules that they refer to, and
writes the messages. Each part has its own transaction, so that no transaction is open for long. All
compared values are written once and never change, so the parts need not be from one snapshot: every
CDR that was committed before the verification began is checked, and CDRs that are recorded
meanwhile cause no false differences.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from ratingcore.record.kept_rates import KeptRates
from ratingcore.record.stored_rows import StoredRows, read_copy, read_tuples
from ratingcore.record.verification import Finding, recompute
from tollwire.service.accounts.tenants import require_tenant
from tollwire.service.domain import scopes
from tollwire.service.domain.checks import check_id, check_period, refuse
from tollwire.service.domain.model import RatingStatus, UnratedReason
from tollwire.service.domain.money import decimals_of, format_cost, format_price
from tollwire.service.domain.record_model import (
    CdrDifference,
    VerificationFilter,
    VerificationProgress,
)
from tollwire.service.record.uploads import visible_upload
from tollwire.service.storage import kept_rates, stored_rows
from tollwire.service.storage.engine import Connection, Database

# The number of ids in one part. Larger parts use more memory and are hardly faster.
PART_IDS = 20_000
# The number of rate versions and rules that are cached between parts, 150 bytes each.
MAX_KEPT = 500_000
MAX_DIFFERENCES = 500  # in one message
PROGRESS_SECONDS = 1.0
MAX_SHOWN_CHARS = 300

# The fields of a row that have another name in Cdr.
_SHOWN_AS = {
    "started_at_ns": "started_at",
    "ended_at_ns": "ended_at",
    "created_at_ns": "created_at",
    "cost_units": "cost",
    "cost_fraction_e8": "cost",
    "rate_version_id": "rate",
}
# The field and the message of each finding.
_WORDS = {
    Finding.TENANT_MISSING: ("tenant_id", "the history has no such tenant"),
    Finding.RULES_MISSING: ("rate_revision", "the tenant's rates never had this revision"),
    Finding.RULES_DAMAGED: ("rate_revision", "the tenant's rules in the history are invalid"),
    Finding.NOT_BILLABLE: ("status", "only answered outbound calls cost money"),
    Finding.BILLABLE: ("status", "an answered outbound call costs money"),
    Finding.NUMBER_IS_VALID: ("unrated_reason", "the number called is valid"),
    Finding.NUMBER_IS_INVALID: ("destination_number", "the number called is not valid"),
    Finding.RATE_MISSING: ("rate", "the history has no such rate version"),
    Finding.RATE_DAMAGED: ("rate", "the rate version in the history is invalid"),
    Finding.RATE_OF_ANOTHER: ("rate", "the rate belongs to another tenant"),
    Finding.RATE_NOT_PRESENT: ("rate_revision", "the rate did not exist at this revision"),
    Finding.RATE_BLOCKED: ("rate", "the rate is blocked and cannot price a call"),
    Finding.RATE_NOT_IN_EFFECT: (
        "started_at",
        "the rate was not in effect at the start of the call",
    ),
    Finding.PREFIX: ("destination_number", "the number does not begin with the prefix of the rate"),
    Finding.BILL_SECONDS: ("bill_seconds", "the rate gives other bill seconds"),
    Finding.COST: ("cost", "the rate gives another cost"),
    Finding.COST_OVERFLOW: (
        "cost",
        "with this rate the cost would exceed the limit of the tenant's costs",
    ),
}


class _CdrReader:
    """The functions that read CDRs into the core."""

    copy = staticmethod(read_copy)
    tuples = staticmethod(read_tuples)


class Verification:
    """Recomputes stored CDRs. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock

    def verify(self, wanted: VerificationFilter) -> Iterator[VerificationProgress]:
        """Check the CDRs that match. Yields the progress about every second, with the new
        differences; the last element is ``done`` and has the totals.

        NotFound TENANT_NOT_FOUND, UPLOAD_NOT_FOUND.
        """
        refuse(
            [
                *check_id("tenant_id", wanted.tenant_id, required=False),
                *check_id("upload_id", wanted.upload_id, required=False),
                *check_period(wanted.started_after_ns, wanted.started_before_ns),
            ]
        )
        wanted = replace(wanted, within=scopes.within())
        with self._database.read() as connection:
            ids = _ids(connection, wanted)
        return self._progress(wanted, ids)

    def _progress(
        self, wanted: VerificationFilter, ids: tuple[int | None, int]
    ) -> Iterator[VerificationProgress]:
        began = said = self._clock()
        checked = different = 0
        found: list[CdrDifference] = []

        def say(*, done: bool) -> VerificationProgress:
            news = tuple(found[:MAX_DIFFERENCES])
            del found[:MAX_DIFFERENCES]
            seconds = max(self._clock() - began, 1e-9)
            return VerificationProgress(checked, checked / seconds, news, different, done)

        for rows, kept in self._parts(wanted, *ids):
            checked += len(rows)
            part = list(differences(rows, kept))
            different += len({one.cdr_id for one in part})
            found += part
            while len(found) > MAX_DIFFERENCES:
                yield say(done=False)
            if self._clock() - said >= PROGRESS_SECONDS:
                said = self._clock()
                yield say(done=False)
        yield say(done=True)

    def _parts(
        self, wanted: VerificationFilter, after_id: int | None, last_id: int
    ) -> Iterator[tuple[StoredRows, KeptRates]]:
        """The rows in parts, with the rates and rules for the recomputation."""
        kept = KeptRates()
        while True:
            with self._database.read() as connection:
                first_id = stored_rows.next_id(connection, after_id)
                if first_id is None or first_id > last_id:
                    return
                after_id = min(first_id + PART_IDS - 1, last_id)
                rows = stored_rows.read(connection, _CdrReader, first_id, after_id, wanted)
                if len(kept) > MAX_KEPT:
                    kept = KeptRates()
                _complete(connection, rows, kept)
            yield rows, kept


def _ids(connection: Connection, wanted: VerificationFilter) -> tuple[int | None, int]:
    """The id after which to begin (None: at the lowest), and the last id."""
    require_tenant(connection, wanted.tenant_id)
    last_id = stored_rows.last_id(connection) or 0
    if not wanted.upload_id:
        return None, last_id
    visible_upload(connection, wanted.upload_id)
    created = stored_rows.of_upload(connection, wanted.upload_id)
    return (created[0] - 1, created[1]) if created else (last_id, last_id)


def _complete(connection: Connection, rows: StoredRows, kept: KeptRates) -> None:
    """Fetch the rates and rules of the rows that are not cached yet.

    Called after the rows were read: a row refers only to versions that were committed before it. A
    tenant's rules are fetched again when its deck has a later revision.
    """
    for version in kept_rates.versions(connection, kept.missing_versions(rows)):
        kept.put_rate(*version)
    if not len(rows):
        return
    known = {tenant_id: kept.revision(tenant_id) for tenant_id in kept.tenants_of(rows)}
    revisions = kept_rates.revisions(connection, known)
    moved = [tenant_id for tenant_id, revision in revisions.items() if revision != known[tenant_id]]
    rules = kept_rates.rules(connection, moved)
    for tenant_id in moved:
        kept.put_tenant(tenant_id, revisions[tenant_id], rules.get(tenant_id, []))


def differences_of(connection: Connection, cdr_id: int) -> list[CdrDifference]:
    """The differences of one CDR."""
    rows = stored_rows.read(connection, _CdrReader, cdr_id, cdr_id, VerificationFilter())
    kept = KeptRates()
    _complete(connection, rows, kept)
    return list(differences(rows, kept))


def differences(rows: StoredRows, kept: KeptRates) -> Iterator[CdrDifference]:
    """The differences of the rows, by ascending position for each kind of difference."""
    for position, field, stored in rows.misfits:
        yield CdrDifference(
            cdr_id=rows.ids[position],
            tenant_id=0,
            call_id="",
            field=_SHOWN_AS.get(field, field),
            stored=_shown(stored),
            recomputed="",
            message=f"{field}: impossible value",
        )
    for position, finding, value in recompute(rows, kept):
        yield _difference(rows, position, finding, value)


def _difference(rows: StoredRows, position: int, finding: Finding, value: int) -> CdrDifference:
    tenant_id, call_id = rows.records.key(position)
    field, message = _WORDS[finding]
    stored, recomputed = _both(rows, position, finding, value)
    return CdrDifference(
        cdr_id=rows.ids[position],
        tenant_id=tenant_id,
        call_id=call_id,
        field=field,
        stored=_shown(stored),
        recomputed=recomputed,
        message=message,
    )


def _both(rows: StoredRows, position: int, finding: Finding, value: int) -> tuple[object, str]:
    """The stored value, and the correct value if there is exactly one."""
    content = rows.records.content(position)
    outcome = rows.records.outcome(position)
    field, _ = _WORDS[finding]
    if field == "cost":
        assert outcome.cost_units is not None and outcome.cost_fraction_e8 is not None
        stored_e8 = outcome.cost_units * 10**8 + outcome.cost_fraction_e8
        if finding is not Finding.COST:
            return format_price(stored_e8), ""
        decimals = max(decimals_of(stored_e8), decimals_of(value))
        return format_cost(stored_e8, decimals), format_cost(value, decimals)
    if field == "bill_seconds":
        return outcome.bill_seconds, str(value)
    if field == "status":
        is_free = finding is Finding.NOT_BILLABLE
        return RatingStatus(outcome.status).name, "NOT_BILLABLE" if is_free else "RATED or UNRATED"
    if field == "unrated_reason":
        assert outcome.unrated_reason is not None
        return UnratedReason(outcome.unrated_reason).name, "NO_RATE or BLOCKED"
    return {
        "tenant_id": content.tenant_id,
        "destination_number": content.destination_number,
        "started_at": _time(content.started_at_ns),
        "rate": f"version {outcome.rate_version_id}",
        "rate_revision": outcome.rate_revision,
    }[field], ""


def _time(ns: int) -> str:
    seconds, nanos = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09}Z"


def _shown(stored: object) -> str:
    """Any stored value as a text for a message."""
    if stored is None:
        return "NULL"
    text = stored.decode(errors="replace") if isinstance(stored, bytes) else str(stored)
    text = text.encode(errors="replace").decode()
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
