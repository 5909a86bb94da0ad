"""Imports: compares what the core reads of an ImportRatesRequest with the protobuf library, and the
rates that it accepts with the checks of a single rate."""

from __future__ import annotations

from tests.core.test_rateparse import by_core, by_library
from tests.fuzz.agreement import Difference, accepted_alike
from tests.fuzz.fields import Grammar, Values
from tests.rpc.test_conversion_imports import HEAD, rates_in, singly
from tollwire.service.domain.errors import InvalidInput
from tollwire.service.domain.model import ImportMode, ImportPlan, Rate
from tollwire.service.rating.deck_import import Intake, IntakeMemory
from tollwire.service.rpc.conversion.fields import Violations, time_ns
from tollwire.service.rpc.conversion.imports import IncomingRequests
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import types_pb2

_VALUES: Values = {
    "tenant_id": [0, 7],
    "mode": [1, 2],
    "dry_run": [0],
    "rate_count": [0, 1, 2],
    "prefix": b"1 12 44 +44 20 0044 4420".split(),
    "destination": [b"", b"UK", "Österreich".encode(), "é".encode() * 200],
    "cost_per_minute": b"0 0.15 1.5 .5 99999999.9999 00000001.5 1.2345".split(),
    "connect_fee": [b"", b"0", b"0.1", b"99999999.9999"],
    "billing_increment": [1, 6, 60, 86_400],
    "minimum_seconds": [0, 0, 30, 2**31 - 1],
    "start_seconds": [60, 120],
    "seconds": [0, 5, 1_763_000_000, 2**64 - 62_135_596_800, 253_402_300_799],
    "nanos": [0, 0, 1, 999_999_999],
    "blocked": [0, 1],
    "allow_gap": [0, 1],
}
_ODD: Values = {
    "tenant_id": [8, 2**64 - 1],
    "prefix": [
        b"",
        b"4x",
        b"4" * 32,
        b"4" * 33,
        b"+",
        b"\0",
        b"44-5",
        b" 44",
        b"tel:44",
        "٤".encode(),
    ],
    "destination": ["é".encode() * 201, b"x" * 201, b"a\0"],
    "cost_per_minute": b"1.00001 100000000 -1 +1 1e3 1. . 1,5 \xd9\xa1 99999999.99999".split(),
    "connect_fee": [b"-0", b"0.", b" 1", b"1.23456"],
    "billing_increment": [0, 86_401, 2**64 - 1],
    "minimum_seconds": [2**64 - 1],
    "seconds": [2**62, 2**64 - 62_135_596_801, 253_402_300_800],
    "nanos": [10**9, 2**64 - 1],
}
GRAMMAR = Grammar(pb.ImportRatesRequest.DESCRIPTOR, _VALUES, _ODD, frozenset({"intervals"}))


def check(data: bytes) -> int | None:
    found, expected = by_core(data), by_library(data)
    if not accepted_alike(found, expected):
        return None
    if found != expected:
        raise Difference(f"{found} is not {expected}")
    request = pb.ImportRatesRequest.FromString(data)
    violations = Violations()
    start_ns = None
    if request.HasField("effective_from"):
        start_ns = time_ns(request.effective_from, "effective_from", violations)
    # The last value counts, so the message is for this tenant whatever tenant_id precedes it.
    head = pb.ImportRatesRequest(**HEAD, rate_count=len(request.rates)).SerializeToString()
    try:
        incoming = IncomingRequests(iter([data + head]), AssertionError, lambda: None)
    except InvalidInput as refused:
        if list(refused.violations) != list(violations):
            raise Difference(f"{refused.violations} is not {violations}") from None
        return 0
    if violations:
        raise Difference(f"{violations} is accepted")
    plan = ImportPlan(
        HEAD["tenant_id"], ImportMode.MERGE, request.dry_run, start_ns, request.allow_gap
    )
    if incoming.plan != plan:
        raise Difference(f"{incoming.plan} is not {plan}")
    _compare(incoming, list(request.rates))
    return len(request.rates)


def _compare(incoming: IncomingRequests, messages: list[types_pb2.Rate]) -> None:
    rates: list[Rate] = []
    errors: list[tuple[int, str, str]] = []
    places: dict[tuple[str, int | None], int] = {}
    for index, message in enumerate(messages):
        taken, violations = singly(message, incoming.plan.effective_from_ns)
        rates += taken
        errors += [(index, *one) for one in violations]
        for rate in taken:
            first = places.setdefault((rate.prefix, rate.effective_from_ns), index)
            if first != index:
                same = f"rates[{index}] has the same prefix and effective_from as rates[{first}]"
                errors.append((index, "prefix", f"{same}; remove one of them"))
    intake = Intake(HEAD["tenant_id"], IntakeMemory(2**30), incoming.plan.effective_from_ns)
    incoming.fill(intake)
    in_deck = rates_in(intake)
    if sorted(map(repr, in_deck)) != sorted(map(repr, rates)):
        raise Difference(f"{in_deck} is not {rates}")
    _, said = intake.result()
    if sorted((one.index, one.field, one.message) for one in said) != sorted(errors):
        raise Difference(f"{said} is not {errors}")
