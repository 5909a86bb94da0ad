"""What a deck costs, and what happens when there is no memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import pytest

from ratingcore import Deck, DeckBuilder, wire
from ratingcore.memory import fail_allocation
from tests.core.decks import PlainCall, PlainRate, batch_outcomes, deck_of, outcome
from tollwire.v1.rating_service_pb2 import StreamRateCallsRequest, StreamRateCallsResponse
from tollwire.v1.types_pb2 import Call, RatedCall

# Plain prefixes and groups, shared and own terms, intervals, a direct table.
RATES = [
    PlainRate(
        f"{number:04}",
        number % 7,
        intervals=((60, number % 3, 1),) if number % 5 == 0 else (),
        from_ns=5 if number % 11 == 0 else None,
        destination=f"place {number % 13}",
    )
    for number in range(400)
]
CALLS = [PlainCall(f"{number:05}", number % 10) for number in range(0, 5_000, 7)]


@pytest.fixture(autouse=True)
def no_failure_left() -> Iterator[None]:
    yield
    fail_allocation(None)


def failures(attempt: Callable[[], object]) -> int:
    """Let each allocation of an attempt fail in turn, until none does; how many there were."""
    for count in range(10_000):
        fail_allocation(count)
        try:
            attempt()
        except MemoryError:
            assert fail_allocation(None) == -1
        else:
            assert fail_allocation(None) >= 0, "an allocation failed and nobody said so"
            return count
    raise AssertionError("there is no end to the allocations")


def build() -> Deck:
    builder = DeckBuilder()
    for version_id, rate in enumerate(RATES):
        rate.put(builder, version_id)
    return builder.build(1)


def change(base: Deck) -> Deck:
    """More than a few changes, and most terms go."""
    builder = DeckBuilder(base)
    for version_id in range(380):
        builder.remove(version_id, RATES[version_id].prefix)
    for version_id in range(40):
        PlainRate(f"9{version_id}", version_id, from_ns=version_id).put(builder, 1000 + version_id)
    return builder.build(2)


def test_every_allocation_of_a_build_may_fail() -> None:
    assert failures(build) > 20


def test_every_allocation_of_a_change_may_fail_and_the_base_still_serves() -> None:
    base = build()
    before = batch_outcomes(base, CALLS)
    assert failures(lambda: change(base)) > 20
    base._check()
    assert batch_outcomes(base, CALLS) == before
    changed = change(base)
    changed._check()
    assert len(changed) == 60


def test_a_builder_outlives_a_failure() -> None:
    builder = DeckBuilder()
    for version_id, rate in enumerate(RATES):
        rate.put(builder, version_id)
    wanted = list(builder.build(1))
    for count in range(30):
        fail_allocation(count)
        with pytest.raises(MemoryError):
            builder.build(1)
    fail_allocation(None)
    deck = builder.build(1)
    deck._check()
    assert list(deck) == wanted


def test_an_empty_deck_and_the_list_of_rates() -> None:
    assert failures(Deck) == 2
    assert failures(DeckBuilder) > 2
    deck = build()
    assert failures(lambda: list(deck)) == 1


# Of one tenant after the other, so that some are met when a part is answered. Each seventh is not
# there, and the answer to its calls is longer than all others.
MESSAGE = StreamRateCallsRequest(
    calls=[
        Call(
            tenant_id=number // 35 + 1,
            destination_number=call.number,
            direction=2,
            disposition=1,
            duration_seconds=call.seconds,
            call_id=f"{number}",
        )
        for number, call in enumerate(CALLS)
    ]
).SerializeToString()
LONG_ANSWER = RatedCall(destination="x" * 5_000).SerializeToString()


def streamed(deck: Deck) -> bytes:
    return wire.rate_request(
        MESSAGE, lambda tenant_id: deck if tenant_id % 7 else None, lambda _: LONG_ANSWER, 50, 1_000
    )


def test_every_allocation_of_a_request_may_fail_and_the_next_one_is_answered() -> None:
    deck = build()
    answer = streamed(deck)
    # The tenants' hash grows three times, the response as often at the least.
    assert failures(lambda: streamed(deck)) >= 6
    assert streamed(deck) == answer
    deck._check()
    rated = StreamRateCallsResponse.FromString(answer).rated
    assert [one.call_id for one in rated if one.call_id] == [
        f"{number}" for number in range(len(CALLS)) if (number // 35 + 1) % 7
    ]


def test_requests_that_fail_leak_nothing() -> None:
    deck = build()
    answer = streamed(deck)
    for _ in range(3):
        failures(lambda: streamed(deck))
    before = _bytes_in_use()
    for _ in range(20):
        failures(lambda: streamed(deck))
    # The response of each is half done, and may take as much.
    assert len(answer) > 300_000
    assert _bytes_in_use() - before < 100_000


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def _bytes_in_use() -> int:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("this C library does not tell what is allocated")
    libc.mallinfo2.restype = _Mallinfo2
    info = libc.mallinfo2()
    return int(info.uordblks + info.hblkhd)


def test_failures_leak_nothing() -> None:
    base = build()
    failures(lambda: change(base))
    before = _bytes_in_use()
    for _ in range(5):
        failures(lambda: change(base))
    # Each round has more than 20 failures, and a deck of this size takes 10 KB and more.
    assert base.nbytes > 10_000
    assert _bytes_in_use() - before < 100_000


def test_decks_leak_nothing() -> None:
    base = build()
    base = change(base)
    before = _bytes_in_use()
    for _ in range(50):
        list(change(build()))
    assert _bytes_in_use() - before < 100_000


def test_nbytes_is_what_a_deck_takes() -> None:
    decks = [build() for _ in range(10)]
    before = _bytes_in_use()
    decks += [build() for _ in range(100)]
    each = (_bytes_in_use() - before) / 100
    assert decks[0].nbytes == pytest.approx(each, rel=0.05)


def test_small_decks_stay_small() -> None:
    """A hundred rates have no direct table to speak of."""
    deck = deck_of([PlainRate(f"{number:06}") for number in range(0, 1_000_000, 9_973)])
    assert len(deck) == 101
    assert deck.nbytes < 8_000
    assert deck_of([PlainRate("44")]).nbytes < 1_000


def test_what_a_window_costs_is_paid_by_its_prefix_alone() -> None:
    plain = [PlainRate(f"{number:04}") for number in range(10_000)]
    one_window = [*plain[1:], PlainRate("0000", from_ns=5)]
    assert deck_of(one_window).nbytes - deck_of(plain).nbytes < 100


def test_the_rating_survives_its_builder_and_its_base() -> None:
    deck = change(build())
    rating = deck.rate("91", 50, 60, True)
    del deck
    assert rating.destination == "somewhere"
    assert outcome(change(build()), PlainCall("91", 50))[0] == "RATED"
