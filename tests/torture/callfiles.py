"""The records that the torture sends: files of calls whose outcome is known before they are sent.

A file is drawn from a seed and its name, so any client can send it again, also to another tenant.
Every call that will be recorded has a unique ``caller_number``, by which it is found again with any
call_id; so has a call that must never be recorded.

The slow, independent oracle computes the costs. The module depends on nothing of the service.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from google.protobuf import json_format

from tests.integration.client import NOON_NS, SECOND_NS, Client, make_call, make_rate
from tests.integration.wire_oracle import Outcome, expected_outcome, oracle_deck, oracle_result
from tollwire.v1 import types_pb2 as types

RATES = (
    make_rate("1", "0.0120", 60),
    make_rate("33", "0.1111", 1, minimum_seconds=30),
    make_rate("44", "0.0200", 6),
    make_rate("447", "0.1500", 6, connect_fee="0.0333"),
    make_rate("4490", blocked=True),
)
# A long one, so that prefixes match; some have no rate, are blocked or are no number.
DESTINATIONS = (
    *("14155550123", "12125550199", "+33 1 23 45 67 89", "+44 20 7946 0000", "442079460001"),
    *("447911123456", "447700900123", "sip:447700900999@example.org", "449012345678"),
    *("4930123456", "anonymous"),
)
DISPOSITIONS = (types.DISPOSITION_ANSWERED,) * 4 + (types.DISPOSITION_BUSY,)
DIRECTIONS = (types.DIRECTION_OUTBOUND,) * 6 + (types.DIRECTION_INBOUND,)


class Fate(Enum):
    """The outcome of a call in an undisturbed upload."""

    CREATED = "created"
    DUPLICATE = "duplicates"
    CONFLICT = "conflicts"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Totals:
    """The counts as in UploadCdrsResponse and GetUploadResponse."""

    created: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    unrated: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, n) + getattr(other, n) for n in self.__dataclass_fields__))

    @classmethod
    def of(cls, answer: object) -> Totals:
        return cls(*(getattr(answer, name) for name in cls.__dataclass_fields__))


@dataclass(frozen=True)
class CallFile:
    """Calls in the order in which they are sent, and the outcome of each."""

    name: str
    calls: Sequence[types.Call]
    fates: Sequence[Fate]

    def __len__(self) -> int:
        return len(self.calls)

    def recorded(self, end: int | None = None) -> Iterator[types.Call]:
        """Those of the first ``end`` calls that are recorded, each once."""
        for call, fate in zip(self.calls[:end], self.fates, strict=False):
            if fate is Fate.CREATED:
                yield call

    def totals(self, prices: Prices) -> Totals:
        """The totals of an undisturbed upload of the file."""
        counts = Counter(fate.value for fate in self.fates)
        unrated = sum(prices.outcome(call)[0] == "UNRATED" for call in self.recorded())
        return Totals(**{fate.value: counts[fate.value] for fate in Fate}, unrated=unrated)

    def write(self, path: Path) -> None:
        """As JSON lines without a tenant, for ``tollwire cdrs upload --tenant``."""
        with path.open("w") as file:
            for call in self.calls:
                nameless = types.Call()
                nameless.CopyFrom(call)
                nameless.ClearField("tenant_id")
                print(json_format.MessageToJson(nameless, indent=None), file=file)


class Prices:
    """The costs of calls, by the oracle.

    RATES hold at all times, so a call's start does not matter and results are cached without it.
    """

    def __init__(self, tenant: types.Tenant, rates: Sequence[types.Rate] = RATES) -> None:
        self._deck = oracle_deck(tenant, rates)
        self._known: dict[tuple[object, ...], Outcome] = {}

    def outcome(self, call: types.Call) -> Outcome:
        key = (call.destination_number, call.direction, call.disposition, call.duration_seconds)
        if key not in self._known:
            self._known[key] = expected_outcome(oracle_result(self._deck, call))
        return self._known[key]


def new_tenant(client: Client, rates: Sequence[types.Rate] = RATES) -> types.Tenant:
    """A tenant with a deck."""
    tenant = client.new_tenant()
    client.import_rates(tenant.id, rates)
    return tenant


def plain_call(tenant_id: int, marker: str, draw: random.Random) -> types.Call:
    """A call that is recorded, with a random id."""
    started_at = NOON_NS + draw.randrange(10**6) * SECOND_NS // 100
    return make_call(
        tenant_id,
        draw.choice(DESTINATIONS),
        draw.randrange(200),
        caller_number=marker,
        call_id=f"{draw.getrandbits(128):032x}",
        direction=draw.choice(DIRECTIONS),
        disposition=draw.choice(DISPOSITIONS),
        started_at=started_at,
    )


def plain_file(seed: str, name: str, tenant_id: int, size: int) -> CallFile:
    """Calls that are all new."""
    draw = random.Random(f"{seed}/{name}")
    calls = [plain_call(tenant_id, f"{name}-{index}", draw) for index in range(size)]
    return CallFile(name, calls, [Fate.CREATED] * size)


def mixed_file(seed: str, name: str, tenant_id: int, size: int) -> CallFile:
    """Mostly new calls; some that were sent before in the same file, unchanged or with other
    content, and some that break a rule."""
    draw = random.Random(f"{seed}/{name}")
    calls: list[types.Call] = []
    fates: list[Fate] = []
    new: list[types.Call] = []
    for index in range(size):
        call = plain_call(tenant_id, f"{name}-{index}", draw)
        chance = draw.random()
        fate = Fate.CREATED
        if chance < 0.08 and new:
            earlier = draw.choice(new)
            if chance < 0.05 or not earlier.call_id:
                fate, call = Fate.DUPLICATE, earlier
            else:
                fate, call.call_id = Fate.CONFLICT, earlier.call_id
        elif chance < 0.10:
            fate = Fate.REJECTED
            _break(call, draw)
        else:
            if chance < 0.18:
                call.call_id = ""
            new.append(call)
        calls.append(call)
        fates.append(fate)
    return CallFile(name, calls, fates)


def _break(call: types.Call, draw: random.Random) -> None:
    """Make it a call that breaks a rule."""
    way = draw.randrange(3)
    if way == 0:
        call.direction = types.DIRECTION_UNSPECIFIED
    elif way == 1:
        call.duration_seconds = -1
    else:
        call.ClearField("started_at")
