"""Verification: stored costs recomputed, each from the rate that its CDR keeps.

The rating core recomputes (ratingcore/record/verification.pyx) and says which CDRs differ; here
they are read part by part, the rates and rules that they refer to are fetched, and what differs is
worded. Each part is read in a transaction of its own, so that none is open for long, however many
CDRs there are. All that is compared is written once and kept for ever, so the parts need not be of
one moment: every CDR that was committed before the verification began is checked, and what is
recorded meanwhile raises no false alarm.
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

# Ids that one part looks at. Larger ones take more memory and are hardly faster.
PART_IDS = 20_000
# Versions of rates and the like that are kept from part to part: 150 bytes each.
MAX_KEPT = 500_000
MAX_DIFFERENCES = 500  # in one message
PROGRESS_SECONDS = 1.0
MAX_SHOWN_CHARS = 300

# Where a field of a row is found in a Cdr, if under another name.
_SHOWN_AS = {
    "started_at_ns": "started_at",
    "ended_at_ns": "ended_at",
    "created_at_ns": "created_at",
    "cost_units": "cost",
    "cost_fraction_e8": "cost",
    "rate_version_id": "rate",
}
# Of each finding the field, and what is wrong.
_WORDS = {
    Finding.TENANT_MISSING: ("tenant_id", "nothing is kept of such a tenant"),
    Finding.RULES_MISSING: ("rate_revision", "the tenant's rates never were at this revision"),
    Finding.RULES_DAMAGED: ("rate_revision", "what is kept of the tenant cannot be its rules"),
    Finding.NOT_BILLABLE: ("status", "only answered outbound calls cost money"),
    Finding.BILLABLE: ("status", "an answered outbound call costs money"),
    Finding.NUMBER_IS_VALID: ("unrated_reason", "the number called is valid"),
    Finding.NUMBER_IS_INVALID: ("destination_number", "it is no valid number"),
    Finding.RATE_MISSING: ("rate", "no such version of a rate is kept"),
    Finding.RATE_DAMAGED: ("rate", "what is kept of the rate cannot be one"),
    Finding.RATE_OF_ANOTHER: ("rate", "it is a rate of another tenant"),
    Finding.RATE_NOT_PRESENT: ("rate_revision", "the rate was not there at this revision"),
    Finding.RATE_BLOCKED: ("rate", "it is blocked, and prices no call"),
    Finding.RATE_NOT_IN_EFFECT: ("started_at", "the rate was not in effect then"),
    Finding.PREFIX: ("destination_number", "it does not begin with the prefix of the rate"),
    Finding.BILL_SECONDS: ("bill_seconds", "the kept rate bills other seconds"),
    Finding.COST: ("cost", "the kept rate makes another cost"),
    Finding.COST_OVERFLOW: (
        "cost",
        "by the kept rate it would pass the limit of the tenant's costs",
    ),
}


class _CdrReader:
    """How rows become what the core checks."""

    copy = staticmethod(read_copy)
    tuples = staticmethod(read_tuples)


class Verification:
    """Recomputes stored CDRs. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock

    def verify(self, wanted: VerificationFilter) -> Iterator[VerificationProgress]:
        """Check the CDRs that match. About each second how far it is, with the differences since
        the last time; what comes last is ``done`` and has the totals.

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
        """The rows part by part, with what they are recomputed from."""
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
    """Behind which id to begin, None for the lowest, and with which to end."""
    require_tenant(connection, wanted.tenant_id)
    last_id = stored_rows.last_id(connection) or 0
    if not wanted.upload_id:
        return None, last_id
    visible_upload(connection, wanted.upload_id)
    created = stored_rows.of_upload(connection, wanted.upload_id)
    return (created[0] - 1, created[1]) if created else (last_id, last_id)


def _complete(connection: Connection, rows: StoredRows, kept: KeptRates) -> None:
    """Fetch what the rows are recomputed from and is not kept yet.

    After the rows: a row names nothing that was not committed before it. A tenant's rules are
    fetched again as soon as its deck has moved on.
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
    """What is wrong with one CDR."""
    rows = stored_rows.read(connection, _CdrReader, cdr_id, cdr_id, VerificationFilter())
    kept = KeptRates()
    _complete(connection, rows, kept)
    return list(differences(rows, kept))


def differences(rows: StoredRows, kept: KeptRates) -> Iterator[CdrDifference]:
    """What is wrong with the rows, by rising position of each kind."""
    for position, field, stored in rows.misfits:
        yield CdrDifference(
            cdr_id=rows.ids[position],
            tenant_id=0,
            call_id="",
            field=_SHOWN_AS.get(field, field),
            stored=_shown(stored),
            recomputed="",
            message=f"{field}: no recording writes such a value",
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
    """What is stored, and what it must be where that can be said."""
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
    """A stored value as text that fits a message, whatever it is."""
    if stored is None:
        return "NULL"
    text = stored.decode(errors="replace") if isinstance(stored, bytes) else str(stored)
    text = text.encode(errors="replace").decode()
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
