"""The memory of a deck, and failed allocations."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ratingcore import Deck, DeckBuilder
from ratingcore.base.memory import fail_allocation, live_blocks
from ratingcore.wire import rate_calls
from tests.core.allocations import each_allocation_fails
from tests.core.decks import (
    PlainCall,
    PlainRate,
    batch_outcomes,
    columns_of,
    deck_of,
    outcome,
)
from tollwire.v1.rating_service_pb2 import StreamRateCallsRequest, StreamRateCallsResponse
from tollwire.v1.types_pb2 import Call, RatedCall

_testcapi: Any
try:
    import _testcapi
except ImportError:  # a Python without its own tests
    _testcapi = None

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
    """The count of allocations of the attempt, each of which failed once."""
    return each_allocation_fails(attempt)[1]


def build() -> Deck:
    builder = DeckBuilder()
    for version_id, rate in enumerate(RATES):
        rate.put(builder, version_id)
    return builder.build(1)


def change(base: Deck) -> Deck:
    """Many changes, which remove most terms."""
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


def with_long_ids(base: Deck) -> Deck:
    """One id that needs a column for the upper halves, in the last slots of the base."""
    builder = DeckBuilder(base)
    builder.remove(399, RATES[399].prefix)
    builder.put_many([(1 << 40, 1 << 50, "0399", "far", 5, 5), (400, 400, "0400", "", 1, 1)])
    return builder.build(3)


def with_more(base: Deck) -> Deck:
    """Copies long ids and short ones."""
    builder = DeckBuilder(base)
    builder.put_many((n, n, f"{n}", f"place {n}", n, 6) for n in range(1000, 1020))
    return builder.build(4)


def fails_without_a_trace(attempt: Callable[[Deck], Deck], base: Deck) -> None:
    """After each of the failures, and after the success at the end."""
    before = live_blocks()
    assert failures(lambda: attempt(base)) > 20
    assert live_blocks() == before
    made = attempt(base)
    made._check()
    assert live_blocks() > before
    del made
    assert live_blocks() == before
    base._check()


def test_no_block_is_leaked() -> None:
    gc.collect()
    before = live_blocks()
    fails_without_a_trace(change, build())
    fails_without_a_trace(with_long_ids, build())
    fails_without_a_trace(with_more, with_long_ids(build()))
    assert failures(build) > 20
    assert live_blocks() == before


def test_a_builder_frees_its_blocks() -> None:
    before = live_blocks()
    builder = DeckBuilder()
    builder.put(1, 1, "4", "x", 1, 1, 0, 0, [(1, 1, 1)])
    assert live_blocks() > before
    del builder
    assert live_blocks() == before


@pytest.mark.skipif(_testcapi is None, reason="this Python cannot let its own allocations fail")
def test_every_allocation_of_python_may_fail_too() -> None:
    """Python allocates the columns and their buffers."""
    base = build()
    arguments = columns_of(CALLS[:50])
    wanted = [list(column) for column in base.rate_columns(*arguments)]
    before = live_blocks()
    failed = 0
    for count in range(200):
        results: Any = None
        _testcapi.set_nomemory(count, count + 1)
        try:
            results = base.rate_columns(*arguments)
        except MemoryError:
            failed += 1
        finally:
            _testcapi.remove_mem_hooks()
        if results is not None:
            assert [list(column) for column in results] == wanted
    assert failed > 5
    assert live_blocks() == before


# The tenants alternate, so that some are new in a later part. Every seventh does not exist, and the
# answer to its calls is longer than all others.
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
    return rate_calls.rate_request(
        MESSAGE, lambda tenant_id: deck if tenant_id % 7 else None, lambda _: LONG_ANSWER, 50, 1_000
    )


def test_every_allocation_of_a_request_may_fail_and_the_next_one_is_answered() -> None:
    deck = build()
    answer = streamed(deck)
    # The tenants' hash table grows three times, the response at least as often.
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
    # The response of each is half written, and may take that much.
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
        pytest.skip("this C library does not report its allocations")
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


def test_nbytes_is_the_memory_of_a_deck() -> None:
    decks = [build() for _ in range(10)]
    before = _bytes_in_use()
    decks += [build() for _ in range(100)]
    each = (_bytes_in_use() - before) / 100
    assert decks[0].nbytes == pytest.approx(each, rel=0.05)


def test_small_decks_stay_small() -> None:
    """The direct table of a hundred rates is tiny."""
    deck = deck_of([PlainRate(f"{number:06}") for number in range(0, 1_000_000, 9_973)])
    assert len(deck) == 101
    assert deck.nbytes < 8_000
    assert deck_of([PlainRate("44")]).nbytes < 1_000


def test_a_window_adds_memory_for_its_prefix_only() -> None:
    plain = [PlainRate(f"{number:04}") for number in range(10_000)]
    one_window = [*plain[1:], PlainRate("0000", from_ns=5)]
    assert deck_of(one_window).nbytes - deck_of(plain).nbytes < 100


def test_the_rating_survives_its_builder_and_its_base() -> None:
    deck = change(build())
    rating = deck.rate("91", 50, 60, True)
    del deck
    assert rating.destination == "somewhere"
    assert outcome(change(build()), PlainCall("91", 50))[0] == "RATED"
