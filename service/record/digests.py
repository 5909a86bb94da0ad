"""What the ledger's digests of pricings and reversals are of. (Those of CDRs come from the rating
core: ratingcore/record/row_digest.pyx.)

The digests are stored, and auditors compute them by themselves: a format that was ever written must
never change. New digests are of format 2, in which the rest of a cost behind its whole units is in
10^-8; in format 1 it is in 10^-4. All numbers are little-endian 64-bit integers.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import NamedTuple


class PricedRow(NamedTuple):
    """A pricing and what it made of its CDR, in the order in which they are hashed.

    Where the CDR stayed UNRATED and got another reason, ``status`` is UNRATED, the new reason
    stands in the place of ``bill_seconds``, and the three numbers after it are 0."""

    id: int
    cdr_id: int
    unrated_reason: int  # this and the next one as they were before
    rate_revision: int
    priced_at_ns: int
    status: int  # from here on the CDR's, after the pricing
    bill_seconds: int
    cost_units: int
    cost_fraction_e8: int
    rate_version_id: int  # 0: none
    new_rate_revision: int


class ReversedRow(NamedTuple):
    """A reversal, in the order in which its fields are hashed."""

    id: int
    cdr_id: int
    tenant_id: int
    started_at_ns: int
    cost_units: int | None  # None: the CDR had no cost
    cost_fraction_e8: int | None
    created_at_ns: int
    upload_id: int | None  # None: no upload brought the CDR
    reason: str
    requested_by: str


# The format of new digests.
FORMAT = 2

_PRICED = struct.Struct("<11q")
_REVERSED = struct.Struct("<9q")


_E4 = 10_000


def digest_of_pricings(rows: Iterable[PricedRow], format_: int = FORMAT) -> bytes:
    """SHA-256 over the rows, one after the other: their eleven numbers. b"": a row holds what the
    format has no place for."""
    hashed = hashlib.sha256(b"tollwire.pricings.%d" % format_)
    for row in rows:
        if format_ == 1:
            if row.cost_fraction_e8 % _E4:
                return b""
            row = row._replace(cost_fraction_e8=row.cost_fraction_e8 // _E4)
        hashed.update(_PRICED.pack(*row))
    return hashed.digest()


def digest_of_reversals(rows: Iterable[ReversedRow], format_: int = FORMAT) -> bytes:
    """SHA-256 over the rows, one after the other: seven numbers (0 for a cost that there is not),
    1 or 0 for whether there is a cost, the upload (0 for none), and the two texts, which hold no
    NUL, with a NUL after each. b"": a row holds what the format has no place for."""
    hashed = hashlib.sha256(b"tollwire.reversals.%d" % format_)
    for id_, cdr_id, tenant_id, started, units, fraction, created, upload_id, reason, by in rows:
        if format_ == 1 and fraction:
            # Costs of reversals are below 0, and so is the rest.
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
