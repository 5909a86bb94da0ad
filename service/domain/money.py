"""Exact money: converts decimal text to integers scaled by 10**8 and back; the known currencies.

Does not round: a price with more than 8 decimals is refused (the limits of the rating rules), and
the rating core rounds each cost once.
"""

from __future__ import annotations

import re

from tollwire.service.domain.model import MAX_COST_DECIMALS, MAX_PRICE_E8, MIN_COST_DECIMALS

_PRICE = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_MAX_UNITS_DIGITS = len(str(MAX_PRICE_E8 // 10**8))
_SHOWN_CHARS = 40

# The active codes of ISO 4217 (list one, 1 January 2026), without precious metals, bond market
# units, and the codes for testing and for "no currency".
_CODES = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD
    CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP
    GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR
    KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN
    MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD
    SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX
    USD USN UYI UYU UYW UZS VED VES VND VUV WST XAD XAF XCD XCG XDR XOF XPF XSU XUA YER ZAR ZMW ZWG
"""
CURRENCIES = frozenset(_CODES.split())


def parse_price(text: str) -> int:
    """The price in ``text``, scaled by 10**8: "0.012" is 1200000.

    Only ASCII digits with at most 8 decimals after one point, not counting trailing zeros: no sign,
    exponent, separator or space. ValueError for other texts and for prices above 99999999.99999999.
    """
    match = _PRICE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"must be a decimal number such as 0.0120, without sign or commas; got {_show(text)}"
        )
    units, decimals = match[1].lstrip("0"), (match[2] or "").rstrip("0")
    if len(decimals) > MAX_COST_DECIMALS:
        raise ValueError(
            f"must have at most {MAX_COST_DECIMALS} decimals, because it is never rounded; got"
            f" {_show(text)}"
        )
    if len(units) > _MAX_UNITS_DIGITS:
        raise ValueError(f"must be 0 to {format_price(MAX_PRICE_E8)}; got {_show(text)}")
    return int(units or "0") * 10**8 + int(decimals.ljust(8, "0"))


def format_price(price_e8: int) -> str:
    """A price as decimal text with at least 4 decimals, and no trailing zeros after the fourth:
    2000000 is "0.0200", 137000 is "0.00137"."""
    return format_cost(price_e8, decimals_of(price_e8))


def format_cost(cost_e8: int, decimals: int) -> str:
    """A cost as decimal text with exactly ``decimals`` (4 to 8), which must represent it exactly:
    with 4 decimals 400000 is "0.0040", and -10000 is "-0.0001"."""
    units, fraction = divmod(abs(cost_e8), 10**8)
    text = f"{'-' if cost_e8 < 0 else ''}{units}.{fraction:08d}"
    return text[: len(text) - (MAX_COST_DECIMALS - decimals)]


def decimals_of(amount_e8: int) -> int:
    """The number of decimals that represent an amount exactly: 4 to 8."""
    zeros = f"{abs(amount_e8) % 10**8:08d}"
    return max(MIN_COST_DECIMALS, len(zeros.rstrip("0")))


def cost_e8(cost_scaled: int, decimals: int) -> int:
    """A cost scaled by 10**8, from a cost of the rating core, which is scaled by 10**decimals."""
    return int(cost_scaled) * int(10 ** (MAX_COST_DECIMALS - decimals))


def max_cost_words(decimals: int) -> str:
    """The limit of the costs of a tenant with this ``cost_decimals``, in words."""
    digits = 15 if decimals == MIN_COST_DECIMALS else 18 - decimals
    return f"{digits} digits before the point, the limit of a tenant with cost_decimals {decimals}"


def _show(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
