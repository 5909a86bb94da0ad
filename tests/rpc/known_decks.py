"""Decks without a database, with all features of rates, and the slow way to rate with them: message
objects. The bulk path is compared with that."""

from __future__ import annotations

import random

import ratingcore
from tollwire.service.cache.decks import Decks, TenantDeck
from tollwire.service.domain.errors import NotFound, Reason
from tollwire.service.domain.model import Rounding, Tenant
from tollwire.service.rating.calls import Calls
from tollwire.service.rpc.conversion import calls as conversion
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import types_pb2

NOW_NS = 1_763_000_000 * 10**9


class KnownDecks(Decks):
    """Fixed decks without a database."""

    def __init__(self, decks: dict[int, TenantDeck]) -> None:
        self._decks = decks

    def deck(self, tenant_id: int, asked_at: float | None = None) -> TenantDeck:
        try:
            return self._decks[tenant_id]
        except KeyError:
            raise NotFound(Reason.TENANT_NOT_FOUND, f"there is no tenant {tenant_id}") from None

    def refresh(self) -> None:
        pass


def tenant_deck(tenant_id: int, rounding: Rounding, **dialling: str) -> TenantDeck:
    """A deck with all features of rates, on few digits, so that calls match them."""
    builder = ratingcore.DeckBuilder()
    pick = random.Random(tenant_id)
    prefixes = sorted({"".join(pick.choices("0123", k=pick.randrange(5))) for _ in range(60)})
    for rate_id, prefix in enumerate(prefixes, start=2**33 * tenant_id):
        builder.put(
            rate_id + 1000,
            rate_id,
            prefix,
            pick.choice(["", "Österreich", "x" * 200, "Some Land mobile"]),
            pick.choice([0, 1, 12, 1500_0000, 13_7000, 200_0000, 99_999_999_99999999]),
            pick.choice([1, 6, 60, 86_400]),
            connect_fee_e8=pick.choice([0, 0, 7, 99_999_999_99999999]),
            minimum_seconds=pick.choice([0, 0, 30]),
            intervals=pick.choice([(), (), ((60, 5, 1), (120, 99_999_999_99999999, 60))]),
            effective_from_ns=pick.choice([None, None, NOW_NS]),
            blocked=pick.random() < 0.1,
        )
    deck = builder.build(tenant_id * 300, rounding, **dialling, cost_decimals=4 + tenant_id % 5)
    tenant = Tenant(id=tenant_id, rounding=rounding, **dialling, cost_decimals=4 + tenant_id % 5)
    return TenantDeck(tenant, deck, tenant_id * 300)


DECKS = KnownDecks(
    {
        1: tenant_deck(1, Rounding.HALF_UP),
        2: tenant_deck(2, Rounding.UP, country_code="12", national_prefix="0"),
        3: tenant_deck(3, Rounding.HALF_EVEN, international_prefix="00"),
        2**40: TenantDeck(Tenant(id=2**40), ratingcore.DeckBuilder().build(1), 1),
    }
)
CALLS = Calls(DECKS)


def by_messages(request: bytes) -> bytes:
    """The response's bytes for a StreamRateCallsRequest's, through message objects."""
    response = pb.StreamRateCallsResponse()
    message = pb.StreamRateCallsRequest.FromString(request)
    for result in CALLS.rate_batch(conversion.read_calls(message.calls, now_ns=NOW_NS)):
        rated = types_pb2.RatedCall()
        conversion.write_rated(result, rated)
        if message.view == types_pb2.RATED_CALL_VIEW_BASIC:
            basic = types_pb2.RatedCall(status=rated.status, rate_id=rated.rate_id)
            if rated.HasField("cost"):
                basic.bill_seconds, basic.cost = rated.bill_seconds, rated.cost
            if rated.HasField("error"):
                basic.error.CopyFrom(rated.error)
            rated = basic
        response.rated.append(rated)
    return response.SerializeToString()
