"""The real deck and the real calls, the same in every run.

The deck is the union of the prefixes in the phonenumbers package's geocoding and carrier data:
about 317,000 of 3 to 9 digits. The destinations are that package's; the prices are drawn from a
fixed seed by country code, higher for mobile than for fixed lines. The calls extend prefixes drawn
uniformly from the deck with random digits to 12.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE
from phonenumbers.carrierdata import CARRIER_DATA
from phonenumbers.geodata import GEOCODE_DATA
from phonenumbers.geodata.locale import LOCALE_DATA

SEED = 20_260_301
NUMBER_DIGITS = 12
LONGEST_DESTINATION = 200
_INCREMENTS = (1, 1, 6, 30, 60)


@dataclass(frozen=True, slots=True)
class DeckRow:
    """One rate of the deck. ``cost_per_minute`` is text with 4 decimals."""

    prefix: str
    destination: str
    cost_per_minute: str
    billing_increment: int


@dataclass(frozen=True, slots=True)
class _Country:
    name: str
    fixed_e4: int
    mobile_e4: int
    increment: int


def real_deck(every: int = 1) -> list[DeckRow]:
    """The deck in ascending order of prefix; or every n-th rate of it."""
    countries = {code: _country(code) for code in COUNTRY_CODE_TO_REGION_CODE}
    prefixes = sorted(GEOCODE_DATA.keys() | CARRIER_DATA.keys())
    return [_row(countries, prefix) for prefix in prefixes[::every]]


def real_numbers(prefixes: Sequence[str], seed: int) -> Iterator[str]:
    """An endless sequence of numbers, each below a prefix drawn uniformly."""
    draw = random.Random(seed)
    while True:
        prefix = prefixes[int(draw.random() * len(prefixes))]
        missing = NUMBER_DIGITS - len(prefix)
        yield f"{prefix}{int(draw.random() * 10**missing):0{missing}d}"


def _country(code: int) -> _Country:
    draw = random.Random(f"{SEED}-{code}")
    fixed_e4 = max(1, round(draw.lognormvariate(-4.2, 1.0) * 10_000))
    return _Country(
        name=_country_name(COUNTRY_CODE_TO_REGION_CODE[code][0]) or f"+{code}",
        fixed_e4=fixed_e4,
        mobile_e4=round(fixed_e4 * draw.uniform(1.5, 8)),
        increment=draw.choice(_INCREMENTS),
    )


def _country_name(region: str) -> str:
    names = LOCALE_DATA.get(region, {})
    name = names.get("en", "")
    # "*de": the German name of the destination.
    return names.get(name[1:], "") if name.startswith("*") else name


def _row(countries: dict[int, _Country], prefix: str) -> DeckRow:
    country = next(
        countries[int(prefix[:digits])] for digits in (1, 2, 3) if int(prefix[:digits]) in countries
    )
    carrier = CARRIER_DATA.get(prefix, {}).get("en", "")
    where = carrier or GEOCODE_DATA.get(prefix, {}).get("en", "")
    price_e8 = country.mobile_e4 if carrier else country.fixed_e4
    # The names of some areas list all their towns.
    destination = f"{country.name}, {where}" if where not in ("", country.name) else country.name
    return DeckRow(
        prefix=prefix,
        destination=destination[:LONGEST_DESTINATION],
        cost_per_minute=f"{price_e8 // 10_000}.{price_e8 % 10_000:04d}",
        billing_increment=country.increment,
    )
