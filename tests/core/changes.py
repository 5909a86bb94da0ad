"""Random sequences of changes to a deck, each deck built from the one before, against the
oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ratingcore import Deck, DeckBuilder, RateInfo
from tests.core.decks import (
    PlainCall,
    PlainRate,
    calls,
    expected,
    oracle_of,
    outcome,
    plain_rates,
    rate_lists,
)


def info_of(rate: PlainRate, version_id: int) -> RateInfo:
    return RateInfo(
        version_id,
        version_id + 1000,
        rate.prefix,
        rate.destination,
        rate.price_e8,
        rate.increment,
        rate.connect_fee_e8,
        rate.minimum_seconds,
        rate.intervals,
        rate.from_ns,
        rate.to_ns,
        rate.blocked,
    )


def in_order(rates: list[tuple[int, PlainRate]]) -> list[RateInfo]:
    """Sorted by prefix, those of one prefix by effective_from, latest first."""

    def key(item: tuple[int, PlainRate]) -> tuple[str, bool, int]:
        begin = item[1].from_ns
        return (item[1].prefix, begin is None, -(begin or 0))

    return [info_of(rate, version_id) for version_id, rate in sorted(rates, key=key)]


class Changes(RuleBasedStateMachine):
    """The changes of an operator between two builds, in any order."""

    @initialize(rates=rate_lists)
    def begin(self, rates: list[PlainRate]) -> None:
        self.next_version = 0
        self.rates: dict[int, PlainRate] = {}
        self.deck = Deck()
        self.builder = DeckBuilder()
        for rate in rates:
            self._put(rate)
        self.build()

    def _put(self, rate: PlainRate) -> None:
        rate.put(self.builder, self.next_version)
        self.rates[self.next_version] = rate
        self.next_version += 1

    def _free(self, rate: PlainRate) -> bool:
        return all(
            (other.prefix, other.from_ns) != (rate.prefix, rate.from_ns)
            for other in self.rates.values()
        )

    @rule(rate=plain_rates())
    def create(self, rate: PlainRate) -> None:
        if self._free(rate):
            self._put(rate)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if self.rates:
            version_id = data.draw(st.sampled_from(sorted(self.rates)))
            self.builder.remove(version_id, self.rates.pop(version_id).prefix)

    @rule(data=st.data(), price_e8=st.integers(0, 10_000))
    def change(self, data: st.DataObject, price_e8: int) -> None:
        if self.rates:
            version_id = data.draw(st.sampled_from(sorted(self.rates)))
            rate = self.rates.pop(version_id)
            self.builder.remove(version_id, rate.prefix)
            self._put(PlainRate(rate.prefix, price_e8, from_ns=rate.from_ns))

    @rule(data=st.data(), to_ns=st.integers(-2, 12))
    def expire(self, data: st.DataObject, to_ns: int) -> None:
        open_ended = [
            version_id
            for version_id, rate in sorted(self.rates.items())
            if rate.to_ns is None and (rate.from_ns is None or rate.from_ns < to_ns)
        ]
        if open_ended:
            version_id = data.draw(st.sampled_from(open_ended))
            rate = self.rates.pop(version_id)
            self.builder.remove(version_id, rate.prefix)
            self._put(replace(rate, to_ns=to_ns))

    @rule(rates=rate_lists, all_others_go=st.booleans())
    def import_(self, rates: list[PlainRate], all_others_go: bool) -> None:
        coming = {(rate.prefix, rate.from_ns) for rate in rates}
        for version_id, rate in sorted(self.rates.items()):
            if all_others_go or (rate.prefix, rate.from_ns) in coming:
                self.builder.remove(version_id, rate.prefix)
                del self.rates[version_id]
        first = self.next_version
        self.next_version += len(rates)
        coming_rates = dict(enumerate(rates, first))
        self.builder.put_many(rate.arguments(number) for number, rate in coming_rates.items())
        self.rates.update(coming_rates)

    @rule(data=st.data())
    def change_nothing(self, data: st.DataObject) -> None:
        if self.rates:
            version_id = data.draw(st.sampled_from(sorted(self.rates)))
            self.builder.remove(version_id, self.rates[version_id].prefix)
            self.rates[version_id].put(self.builder, version_id)

    @rule()
    def build(self) -> None:
        self.deck = self.builder.build(self.deck.revision + 1, cost_decimals=8)
        self.deck._check()
        self.built = dict(self.rates)
        self.builder = DeckBuilder(self.deck)

    @rule(tried=st.lists(calls, min_size=1, max_size=5))
    def rate(self, tried: list[PlainCall]) -> None:
        assert [outcome(self.deck, call) for call in tried] == self.oracle_outcomes(tried)

    @invariant()
    def the_deck_is_what_was_built(self) -> None:
        assert list(self.deck) == in_order(list(self.built.items()))

    def oracle_outcomes(self, tried: Sequence[PlainCall]) -> list[tuple[object, ...]]:
        """The oracle's outcomes of calls under the rates of the last build."""
        oracle = oracle_of(self.built.values())
        versions = list(self.built)
        outcomes: list[tuple[object, ...]] = []
        for call in tried:
            *result, index = expected(oracle, call)
            outcomes.append((*result, None if index is None else versions[int(str(index))]))
        return outcomes
