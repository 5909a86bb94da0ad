"""How one call is rated, for people (rating rules 1 to 8).

Plain Python that reads the rates of a deck and computes the result again with Python's integers. It
is not part of rating; tests compare its results with rating's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

from ..pricing.money import max_cost
from ..pricing.number import normalize_number
from ..pricing.values import ConsideredRate, Explanation, RateInfo, Step

if TYPE_CHECKING:
    from .deck import Deck

ROUNDINGS = {1: "HALF_UP", 2: "HALF_EVEN", 3: "UP", 4: "DOWN"}
SCHEMES = ("sip:", "sips:", "tel:")
SEPARATORS = " -.()/"
# Of one prefix, of which a tenant may have thousands of rates.
MAX_CONSIDERED_OF_PREFIX = 20
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def explain(
    deck: Deck, number: str, started_at_ns: int, duration_seconds: int, billable: bool
) -> Explanation:
    """The result of ``Deck.rate`` for the same arguments, and the reasons."""
    rating = deck.rate(number, started_at_ns, duration_seconds, billable)
    if not billable:
        not_billable = Step(
            "billable", "only outbound calls that were answered cost money", "NOT_BILLABLE"
        )
        nothing = Step("billed seconds", "not billable", "0")
        return Explanation(
            "",
            (),
            (not_billable, nothing, Step("cost", "not billable", _cost(0, deck.cost_decimals))),
        )
    digits = rating.normalized_number
    steps = list(_normalisation(deck, number, digits))
    if not digits:
        return Explanation("", (), tuple(steps))
    candidates, omitted = deck.candidates(digits, started_at_ns, MAX_CONSIDERED_OF_PREFIX)
    steps.append(_prefixes(digits, candidates))
    winner = next((rate for rate in candidates if _in_effect(rate, started_at_ns)), None)
    considered = tuple(_considered(rate, winner, started_at_ns) for rate in candidates)
    if winner is None:
        working = f"no rate in effect at {_time(started_at_ns)} has a prefix of {digits}"
        steps.append(Step("match", working, "UNRATED, NO_RATE"))
    else:
        working = f"the longest prefix of {digits} in effect at {_time(started_at_ns)}"
        steps.append(Step("match", working, f"{winner.prefix!r}, rate {winner.rate_id}"))
        if winner.blocked:
            steps.append(Step("blocked", f"rate {winner.rate_id} is blocked", "UNRATED, BLOCKED"))
        else:
            steps.extend(_arithmetic(winner, duration_seconds, deck))
    return Explanation(digits, considered, tuple(steps), omitted)


def _normalisation(deck: Deck, number: str, digits: str) -> Iterator[Step]:
    """Each step that changes the number, and the result."""
    rest = number
    for name, working, left in _removals(number):
        yield Step(name, working, left)
        rest = left
    plain = normalize_number(number)
    international, national = deck.international_prefix, deck.national_prefix
    if plain == (digits or None):
        rule = "no dialling rule applies"
    elif international and normalize_number(number, "", "", international) == (digits or None):
        rule = f"international prefix {international} removed"
    else:
        rule = f"national prefix {national} replaced by country code {deck.country_code}"
    if not digits:
        yield Step(
            "normalisation",
            f"{number!r} does not leave 1 to 32 digits, but {rest!r}",
            "UNRATED, INVALID_NUMBER",
        )
        return
    yield Step("normalisation", f"{number!r} without scheme, separators and '+'; {rule}", digits)


def _removals(number: str) -> Iterator[tuple[str, str, str]]:
    """Name, working and result of each step before the dialling rules that changes the number
    (rating rule 2)."""
    rest = number
    scheme = next((s for s in SCHEMES if rest[: len(s)].lower() == s), "")
    if scheme:
        rest = rest[len(scheme) :]
        yield "scheme", f"{scheme!r} is removed", rest
    ends = [rest.index(mark) for mark in "@;" if mark in rest]
    if ends:
        mark, rest = rest[min(ends)], rest[: min(ends)]
        yield "domain and parameters", f"everything from {mark!r} on is removed", rest
    if any(character in SEPARATORS for character in rest):
        found = ", ".join(repr(one) for one in SEPARATORS if one in rest)
        rest = "".join(one for one in rest if one not in SEPARATORS)
        yield "separators", f"{found} removed", rest
    if rest.startswith("+"):
        rest = rest[1:]
        yield "plus", "one leading '+' is removed: no dialling rule is tried", rest


def _prefixes(digits: str, candidates: Sequence[RateInfo]) -> Step:
    """The prefixes of the number that have rates."""
    found = dict.fromkeys(rate.prefix for rate in candidates)
    longest, *others = (digits[:length] for length in range(len(digits), -1, -1))
    tried = f"{longest}, {others[0]}, … to the empty prefix" if others[1:] else longest
    result = ", ".join(repr(prefix) for prefix in found) or "none"
    return Step("prefixes", f"the tenant's rates with one of the prefixes {tried}", result)


def _in_effect(rate: RateInfo, at_ns: int) -> bool:
    begun = rate.effective_from_ns is None or rate.effective_from_ns <= at_ns
    return begun and (rate.effective_to_ns is None or at_ns < rate.effective_to_ns)


def _considered(rate: RateInfo, winner: RateInfo | None, at_ns: int) -> ConsideredRate:
    if rate is winner:
        reason = "won: the longest prefix in effect" + ("; it is blocked" if rate.blocked else "")
    elif rate.effective_from_ns is not None and at_ns < rate.effective_from_ns:
        reason = f"lost: not in effect before {_time(rate.effective_from_ns)}"
    elif rate.effective_to_ns is not None and at_ns >= rate.effective_to_ns:
        reason = f"lost: expired at {_time(rate.effective_to_ns)}"
    elif winner is not None and len(rate.prefix) < len(winner.prefix):
        reason = f"lost: its prefix is shorter than {winner.prefix!r}"
    else:
        reason = "lost: a rate with the same prefix has a later effective_from"
    return ConsideredRate(
        rate.rate_id,
        rate.version_id,
        rate.prefix,
        rate.destination,
        rate.effective_from_ns,
        rate.effective_to_ns,
        rate is winner,
        reason,
        rate.blocked,
        _in_effect(rate, at_ns),
    )


def _arithmetic(rate: RateInfo, duration_seconds: int, deck: Deck) -> Iterator[Step]:
    decimals = deck.cost_decimals
    if duration_seconds == 0:
        yield Step("billed seconds", "a call of 0 seconds bills nothing", "0")
        nothing = "a call of 0 seconds costs nothing, nor a connect fee"
        yield Step("cost", nothing, _cost(0, decimals))
        return
    seconds = max(duration_seconds, rate.minimum_seconds)
    if seconds > duration_seconds:
        working = f"{duration_seconds} s is below the minimum of {rate.minimum_seconds} s"
        yield Step("minimum", working, str(seconds))
    bill_seconds = 0
    sixtieths = 60 * rate.connect_fee_e8
    terms = [f"{_price(rate.connect_fee_e8)} connect fee"] if rate.connect_fee_e8 else []
    for name, billed, price_e8, working in _parts(rate, seconds):
        yield Step(name, working, str(billed))
        bill_seconds += billed
        sixtieths += billed * price_e8
        terms.append(f"{billed} / 60 * {_price(price_e8)}")
    if rate.intervals:
        yield Step("billed seconds", "the sum of the parts", str(bill_seconds))
    yield Step("exact cost", " + ".join(terms), str(Fraction(sixtieths, 60 * 10**8)))
    cost_scaled = _rounded(sixtieths, 60 * 10 ** (8 - decimals), deck.rounding)
    working = f"rounded once to {decimals} decimals, {ROUNDINGS[deck.rounding]}"
    most = max_cost(decimals)
    if cost_scaled > most:
        digits = len(str(most)) - decimals
        yield Step("cost", working, f"refused: more than {digits} digits before the point")
    else:
        yield Step("cost", working, _cost(cost_scaled, decimals))


def _parts(rate: RateInfo, seconds: int) -> Iterator[tuple[str, int, int, str]]:
    """Name, billed seconds, price and working of each part of the call (rating rule 7)."""
    parts = [(0, rate.cost_per_minute_e8, rate.billing_increment), *rate.intervals]
    for index, (start, price_e8, increment) in enumerate(parts):
        name = f"billed seconds from {start}" if rate.intervals else "billed seconds"
        if index + 1 < len(parts) and seconds >= parts[index + 1][0]:
            end = parts[index + 1][0]
            yield name, end - start, price_e8, f"the call reaches {end}: {end} - {start}"
            continue
        if seconds > start:
            billed = -(-(seconds - start) // increment) * increment
            working = f"ceil({seconds - start} / {increment}) * {increment}"
            yield name, billed, price_e8, working
        return


def _rounded(sixtieths: int, divisor: int, rounding: int) -> int:
    whole, rest = divmod(sixtieths, divisor)
    match ROUNDINGS[rounding]:
        case "HALF_UP":
            return whole + (2 * rest >= divisor)
        case "HALF_EVEN":
            return whole + (2 * rest > divisor or (2 * rest == divisor and whole % 2 == 1))
        case "UP":
            return whole + (rest > 0)
        case _:
            return whole


def _price(price_e8: int) -> str:
    """With at least 4 decimals."""
    text = f"{price_e8 // 10**8}.{price_e8 % 10**8:08}"
    return text[:-4] + text[-4:].rstrip("0")


def _cost(cost_scaled: int, decimals: int) -> str:
    units, rest = divmod(cost_scaled, 10**decimals)
    return f"{units}.{rest:0{decimals}}"


def _time(at_ns: int) -> str:
    """As in RFC 3339, within the years of Python's calendar."""
    seconds, nanoseconds = divmod(at_ns, 1_000_000_000)
    try:
        moment = EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return f"{seconds} s from 1970"
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z".rjust(20, "0")
