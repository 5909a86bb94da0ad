"""The ledger's digests of late prices and reversals. (ratingcore/record/row_digest.pyx has those of
CDRs.)

The digests are stored, and auditors compute them independently: a format that was ever written must
not change. New digests have format 2, in which the fraction of a cost is in units of 10^-8; in
format 1 it is in units of 10^-4. All numbers are little-endian 64-bit integers.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import NamedTuple


class PricedRow(NamedTuple):
    """A late price and the resulting values of its CDR, in the order in which they are hashed.

    If the CDR stayed UNRATED and got another reason, ``status`` is UNRATED, ``bill_seconds`` has
    the new reason, and the three numbers after it are 0."""

    id: int
    cdr_id: int
    unrated_reason: int  # this and the next field: the values before the pricing
    rate_revision: int
    priced_at_ns: int
    status: int  # this and the following fields: the CDR's values after the pricing
    bill_seconds: int
    cost_units: int
    cost_fraction_e8: int
    rate_version_id: int  # 0: none
    new_rate_revision: int


class ReversedRow(NamedTuple):
    """A reversal; the fields are in the order in which they are hashed."""

    id: int
    cdr_id: int
    tenant_id: int
    started_at_ns: int
    cost_units: int | None  # None: the CDR had no cost
    cost_fraction_e8: int | None
    created_at_ns: int
    upload_id: int | None  # None: the CDR is not from an upload
    reason: str
    requested_by: str


# The format of new digests.
FORMAT = 2

_PRICED = struct.Struct("<11q")
_REVERSED = struct.Struct("<9q")


_E4 = 10_000


def digest_of_pricings(rows: Iterable[PricedRow], format_: int = FORMAT) -> bytes:
    """SHA-256 of the eleven numbers of each row, one row after the other. b"": a row has a value
    that the format cannot represent."""
    hashed = hashlib.sha256(b"tollwire.pricings.%d" % format_)
    for row in rows:
        if format_ == 1:
            if row.cost_fraction_e8 % _E4:
                return b""
            row = row._replace(cost_fraction_e8=row.cost_fraction_e8 // _E4)
        hashed.update(_PRICED.pack(*row))
    return hashed.digest()


def digest_of_reversals(rows: Iterable[ReversedRow], format_: int = FORMAT) -> bytes:
    """SHA-256 of each row, one after the other: seven numbers (0 for a missing cost), 1 if there is
    a cost, else 0, the upload (0 for none), and the two texts, which contain no NUL, with a NUL
    after each. b"": a row has a value that the format cannot represent."""
    hashed = hashlib.sha256(b"tollwire.reversals.%d" % format_)
    for id_, cdr_id, tenant_id, started, units, fraction, created, upload_id, reason, by in rows:
        if format_ == 1 and fraction:
            # Costs of reversals are negative, and so is the fraction.
            if fraction % _E4:
                return b""
            fraction = -(-fraction // _E4)
        numbers = _REVERSED.pack(
            id_,
            cdr_id,
            tenant_id,
            started,
            units or 0,
            fraction or 0,
            created,
            units is not None,
            upload_id or 0,
        )
        hashed.update(numbers + f"{reason}\0{by}\0".encode())
    return hashed.digest()
