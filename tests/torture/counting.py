"""The stored records after a scenario: all are read and compared with those that were sent."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from tests.integration.client import Client
from tests.integration.wire_oracle import Outcome, outcome_of
from tests.torture.tally import Tally
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types


class Prices(Protocol):
    def outcome(self, call: types.Call) -> Outcome:
        """The expected outcome of the call."""


_CONTENT = (
    *("tenant_id", "caller_number", "destination_number", "direction", "disposition"),
    *("duration_seconds", "started_at"),
)
# The number of CDRs that are also read one by one.
SINGLE_READS = 100
EXPORT_SECONDS = 300


def exported(client: Client, **filters: object) -> Iterable[types.Cdr]:
    request = cdr_pb.ExportCdrsRequest(**filters)
    for part in client.cdrs.ExportCdrs(request, timeout=EXPORT_SECONDS):
        yield from part.cdrs


def count(
    tally: Tally,
    client: Client,
    tenant_id: int,
    sent: Mapping[str, types.Call],
    acknowledged: Iterable[str],
    prices: Prices,
) -> None:
    """Read all CDRs of the tenant and add to the tally which are stored, lost, doubled, wrong.

    ``sent``: the calls that may be recorded, by their caller_number; ``acknowledged``: those that
    must be.
    """
    seen: Counter[str] = Counter()
    draw = random.Random(tenant_id)
    again: list[types.Cdr] = []
    for index, cdr in enumerate(exported(client, tenant_id=tenant_id)):
        seen[cdr.caller_number] += 1
        fault = _fault(cdr, sent.get(cdr.caller_number), prices)
        if fault:
            tally.wrong += 1
            tally.problem(f"CDR {cdr.id}: {fault}")
        if index < SINGLE_READS:
            again.append(cdr)
        elif (at := draw.randrange(index)) < SINGLE_READS:
            again[at] = cdr
    missing = [marker for marker in acknowledged if not seen[marker]]
    for marker in missing:
        tally.problem(f"the call {marker} was acknowledged and is missing")
    for marker, times in seen.items():
        if times > 1:
            tally.problem(f"the call {marker} is there {times} times")
    tally.stored += seen.total()
    tally.lost += len(missing)
    tally.doubled += sum(times - 1 for times in seen.values())
    for cdr in again:
        tally.require(client.get_cdr(cdr.id) == cdr, f"GetCdr and ExportCdrs differ on {cdr.id}")


def _fault(cdr: types.Cdr, call: types.Call | None, prices: Prices) -> str:
    """The errors of a CDR, in words; empty if there are none."""
    if call is None:
        return f"{cdr.caller_number!r} should not be there"
    for name in _CONTENT:
        if getattr(cdr, name) != getattr(call, name):
            return f"{name} is {getattr(cdr, name)!r}, sent was {getattr(call, name)!r}"
    if call.call_id and cdr.call_id != call.call_id:
        return f"call_id is {cdr.call_id!r}, sent was {call.call_id!r}"
    expected = prices.outcome(call)
    if outcome_of(cdr) != expected:
        return f"it has {outcome_of(cdr)}, and should have {expected}"
    return ""


def verify(
    tally: Tally, client: Client, root: str = "", *, clock_was_set_back: bool = False
) -> None:
    """Let the server check its costs, and its ledger against a saved root: no difference. All CDRs
    are checked. ``clock_was_set_back``: the ledger may show that, and nothing else."""
    _verified(tally, client.cdrs.VerifyCdrs, cdr_pb.VerifyCdrsRequest())
    request = cdr_pb.VerifyLedgerRequest(root=root)
    _verified(tally, client.cdrs.VerifyLedger, request, clock_was_set_back=clock_was_set_back)


def noted_root(client: Client) -> str:
    return str(client.cdrs.GetLedgerRoot(cdr_pb.GetLedgerRootRequest()).root)


def _verified(
    tally: Tally, method: Any, request: Message, *, clock_was_set_back: bool = False
) -> None:
    name = type(request).__name__.removesuffix("Request")
    try:
        parts = list(method(request, timeout=EXPORT_SECONDS))
    except grpc.RpcError as error:
        tally.problem(f"{name}: {error}")
        return
    differences = [one for part in parts for one in part.differences]
    if clock_was_set_back:
        differences = [one for one in differences if one.kind != types.LEDGER_DIFFERENCE_KIND_TIME]
    for difference in differences[:5]:
        tally.problem(f"{name}: {difference}")
    tally.require(bool(parts) and parts[-1].done, f"{name} was not completed")
    checked = getattr(parts[-1], "checked", 0) or getattr(parts[-1], "rows_checked", 0)
    tally.require(checked >= tally.stored, f"{name} checked {checked:,} rows")
