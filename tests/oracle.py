"""The slow, independent rating: what a call costs by the rating rules of docs/api.md.

It shares no code and no constant with the rating core or the service, so that a mistake has to be
made twice, in two ways, to go unseen. It is written for reading: a dictionary of rates for each
length of prefix, ``fractions.Fraction`` for all money, plain integers of nanoseconds for all times.

``normalize(number, country_code, national_prefix, international_prefix)`` -> the digits to match,
    or None for a number that cannot be matched (rule 2).
``normalize_prefix(prefix)`` -> the digits of a rate's prefix, or None for a text that is none.
``OracleRate`` -> one rate, in plain fields; money is a Fraction (or anything Fraction takes).
``OracleInterval`` -> a later part of a call with its own price (rule 7).
``OracleDeck(rates, rounding, country_code, national_prefix, international_prefix, cost_decimals)``
    ``.rate(number, started_at_ns, duration_seconds, billable)`` -> ``OracleResult``.
``OracleResult`` -> ``status`` "RATED", "NOT_BILLABLE" or "UNRATED"; ``reason`` "", "NO_RATE",
    "BLOCKED" or "INVALID_NUMBER"; ``bill_seconds`` and ``cost`` (a Fraction, already rounded to
    cost_decimals) or None; ``rate_index`` into the list of rates given, None where none matched;
    ``refused`` True where the cost would pass its limit: then there is a ``rate_index`` and neither
    ``bill_seconds`` nor ``cost``, and ``status`` is "".
``bill(rate, duration_seconds)`` -> (bill_seconds, exact cost before rounding) of rules 5 to 7.
``round_cost(exact, rounding, decimals)`` -> the cost with so many decimals (rules 6 and 8).
``is_refused(cost, decimals)`` -> whether it passes the limit of costs with so many decimals.
``show(cost, decimals)`` -> "0.1386".
``show_price(price)`` -> "0.0200", "0.00137".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

SCHEMES = ("sips:", "sip:", "tel:")
SEPARATORS = " -.()/"
DIGITS = "0123456789"
# By cost_decimals, how many digits a cost may have before the point.
DIGITS_BEFORE_THE_POINT = {4: 15, 5: 13, 6: 12, 7: 11, 8: 10}


def _strip(text: str) -> str:
    """Without the scheme, the text after the user part, and the separators."""
    for scheme in SCHEMES:
        if text[: len(scheme)].lower() == scheme and text[: len(scheme)].isascii():
            text = text[len(scheme) :]
            break
    for end in "@;":
        text = text.split(end, 1)[0]
    return "".join(character for character in text if character not in SEPARATORS)


def _is_digits(text: str) -> bool:
    return all(character in DIGITS for character in text)


def normalize(
    number: str,
    country_code: str = "",
    national_prefix: str = "",
    international_prefix: str = "",
) -> str | None:
    """Rule 2. The three dialling rules are the tenant's; "" means that it has none."""
    text = _strip(number)
    if text.startswith("+"):
        text = text[1:]
    elif international_prefix and text.startswith(international_prefix):
        text = text[len(international_prefix) :]
    elif national_prefix and country_code and text.startswith(national_prefix):
        text = country_code + text[len(national_prefix) :]
    if not 1 <= len(text) <= 32 or not _is_digits(text):
        return None
    return text


def normalize_prefix(prefix: str) -> str | None:
    """Rule 2 for the prefix of a rate. A text that is not empty must not become the catch-all."""
    text = prefix.removeprefix("+")
    if len(text) > 32 or not _is_digits(text) or (prefix and not text):
        return None
    return text


@dataclass(frozen=True)
class OracleInterval:
    start_seconds: int
    cost_per_minute: Fraction
    billing_increment: int


@dataclass(frozen=True)
class OracleRate:
    """``effective_from_ns`` and ``effective_to_ns`` None: that end is open."""

    prefix: str
    cost_per_minute: Fraction
    billing_increment: int
    connect_fee: Fraction = Fraction(0)
    minimum_seconds: int = 0
    intervals: tuple[OracleInterval, ...] = ()
    effective_from_ns: int | None = None
    effective_to_ns: int | None = None
    blocked: bool = False


@dataclass(frozen=True)
class OracleResult:
    status: str
    reason: str = ""
    bill_seconds: int | None = None
    cost: Fraction | None = None
    rate_index: int | None = None
    refused: bool = False


def _round_up(seconds: int, increment: int) -> int:
    count = seconds // increment
    if count * increment < seconds:
        count += 1
    return count * increment


def bill(rate: OracleRate, duration_seconds: int) -> tuple[int, Fraction]:
    """Rules 5 to 7: the seconds billed and the exact cost.

    The call is cut into parts at the start of each interval. A part whose next interval the call
    reaches is billed at its exact length: rounded up, it would be billed past that start. The part
    in which the call ends is rounded up to its own increment, even past the next start: the call
    does not reach that start, and the rule limits only parts that do.
    """
    if duration_seconds == 0:
        return 0, Fraction(0)
    seconds = max(duration_seconds, rate.minimum_seconds)
    parts = [(0, rate.cost_per_minute, rate.billing_increment)]
    for interval in rate.intervals:
        parts.append((interval.start_seconds, interval.cost_per_minute, interval.billing_increment))
    bill_seconds = 0
    cost = Fraction(rate.connect_fee)
    for index, (start, cost_per_minute, increment) in enumerate(parts):
        if start >= seconds:
            break
        last = index == len(parts) - 1
        if not last and seconds >= parts[index + 1][0]:
            billed = parts[index + 1][0] - start
        else:
            billed = _round_up(seconds - start, increment)
        bill_seconds += billed
        cost += Fraction(billed, 60) * Fraction(cost_per_minute)
    return bill_seconds, cost


def round_cost(exact: Fraction, rounding: str, decimals: int = 4) -> Fraction:
    """Rule 8. ``rounding`` is HALF_UP, HALF_EVEN, UP or DOWN; ``exact`` is never below 0."""
    scaled = exact * 10**decimals
    whole = scaled.numerator // scaled.denominator
    rest = scaled - whole
    half = Fraction(1, 2)
    if rounding == "HALF_UP":
        up = rest >= half
    elif rounding == "HALF_EVEN":
        up = rest > half or (rest == half and whole % 2 == 1)
    elif rounding == "UP":
        up = rest > 0
    elif rounding == "DOWN":
        up = False
    else:
        raise ValueError(rounding)
    return Fraction(whole + 1 if up else whole, 10**decimals)


def is_refused(cost: Fraction, decimals: int) -> bool:
    return cost >= 10 ** DIGITS_BEFORE_THE_POINT[decimals]


def show(cost: Fraction, decimals: int = 4) -> str:
    """A cost with exactly this number of decimals."""
    scaled = cost * 10**decimals
    if scaled.denominator != 1:
        raise ValueError(f"{cost} has more than {decimals} decimals")
    digits = str(scaled.numerator).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}"


def show_price(price: Fraction) -> str:
    """A price of up to 8 decimals, with as many as it needs, but at least 4."""
    text = show(price, 8)
    while text.endswith("0") and len(text.split(".")[1]) > 4:
        text = text[:-1]
    return text


class OracleDeck:
    """The rates of one tenant and its rules."""

    def __init__(
        self,
        rates: Sequence[OracleRate],
        rounding: str = "HALF_UP",
        country_code: str = "",
        national_prefix: str = "",
        international_prefix: str = "",
        cost_decimals: int = 4,
    ) -> None:
        self.rates = list(rates)
        self.rounding = rounding
        self.cost_decimals = cost_decimals
        self.dialling = (country_code, national_prefix, international_prefix)
        # length of prefix -> prefix -> indexes of the rates with it
        self.by_length: dict[int, dict[str, list[int]]] = {}
        for index, rate in enumerate(self.rates):
            prefix = normalize_prefix(rate.prefix)
            if prefix is None:
                raise ValueError(f"not a prefix: {rate.prefix!r}")
            self.by_length.setdefault(len(prefix), {}).setdefault(prefix, []).append(index)

    def match(self, digits: str, started_at_ns: int) -> int | None:
        """Rule 3: the longest prefix in effect; of one prefix the latest effective_from."""
        for length in sorted(self.by_length, reverse=True):
            if length > len(digits):
                continue
            in_effect = [
                index
                for index in self.by_length[length].get(digits[:length], [])
                if self._in_effect(self.rates[index], started_at_ns)
            ]
            if in_effect:
                return max(in_effect, key=self._start)
        return None

    @staticmethod
    def _in_effect(rate: OracleRate, at_ns: int) -> bool:
        begun = rate.effective_from_ns is None or rate.effective_from_ns <= at_ns
        ended = rate.effective_to_ns is not None and at_ns >= rate.effective_to_ns
        return begun and not ended

    def _start(self, index: int) -> tuple[int, int]:
        start = self.rates[index].effective_from_ns
        return (0, 0) if start is None else (1, start)

    def rate(
        self, number: str, started_at_ns: int, duration_seconds: int, billable: bool
    ) -> OracleResult:
        """Rules 1 to 8 for one call; ``billable`` is "outbound and answered"."""
        if not billable:
            return OracleResult("NOT_BILLABLE", bill_seconds=0, cost=Fraction(0))
        digits = normalize(number, *self.dialling)
        if digits is None:
            return OracleResult("UNRATED", "INVALID_NUMBER")
        index = self.match(digits, started_at_ns)
        if index is None:
            return OracleResult("UNRATED", "NO_RATE")
        if self.rates[index].blocked:
            return OracleResult("UNRATED", "BLOCKED", rate_index=index)
        bill_seconds, exact = bill(self.rates[index], duration_seconds)
        cost = round_cost(exact, self.rounding, self.cost_decimals)
        if is_refused(cost, self.cost_decimals):
            return OracleResult("", rate_index=index, refused=True)
        return OracleResult("RATED", "", bill_seconds, cost, index)
