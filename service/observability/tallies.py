"""The numbers of rated calls, by method and status.

The rating core counts the calls that it rates, and the subjects add the others. Must not depend on
a metrics library: the package ``metrics`` exports the counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratingcore.wire.tally import Tally
from tollwire.service.domain.model import RatingStatus, UnratedReason

RATE_CALL = Tally()
BATCH_RATE_CALLS = Tally()
STREAM_RATE_CALLS = Tally()
CREATE_CDR = Tally()
UPLOAD_CDRS = Tally()
RATE_UNRATED = Tally()

TALLIES: Mapping[str, Tally] = {
    "RatingService/RateCall": RATE_CALL,
    "RatingService/BatchRateCalls": BATCH_RATE_CALLS,
    "RatingService/StreamRateCalls": STREAM_RATE_CALLS,
    "CdrService/CreateCdr": CREATE_CDR,
    "CdrService/UploadCdrs": UPLOAD_CDRS,
    "CdrService/RateUnrated": RATE_UNRATED,
}


_NAMES = {
    (RatingStatus.RATED.value, 0): ("RATED", ""),
    (RatingStatus.NOT_BILLABLE.value, 0): ("NOT_BILLABLE", ""),
    **{(RatingStatus.UNRATED.value, one.value): ("UNRATED", one.name) for one in UnratedReason},
}
_UNRATED: Mapping[str, UnratedReason] = UnratedReason.__members__


def count_unrated(tally: Tally, reason: str) -> None:
    """Count a call that failed with ``reason``, if that is an UnratedReason."""
    if reason in _UNRATED:
        tally.add(RatingStatus.UNRATED, _UNRATED[reason])


def named(tally: Tally) -> dict[tuple[str, str], int]:
    """The counts by the names of status and reason; the reason is empty unless UNRATED."""
    counts = tally.counts()
    return {names: counts.get(outcome, 0) for outcome, names in _NAMES.items()}
