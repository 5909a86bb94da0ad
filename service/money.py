"""Exact money: decimal text to integers scaled by 10**4 and back, and the currencies there are.

Knows no rounding: a price with more than 4 decimals is refused (the limits of the rating rules),
and costs are rounded once, by the rating core.
"""

from __future__ import annotations

import re

from service.model import MAX_PRICE_E4

_PRICE = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_MAX_UNITS_DIGITS = len(str(MAX_PRICE_E4 // 10_000))
_SHOWN_CHARS = 40

# The active codes of ISO 4217 (list one, 1 January 2026) that money can be owed in: without the
# precious metals, the bond market units, and the codes for testing and for "no currency".
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
    """The price in ``text``, scaled by 10**4: "0.012" is 120.

    Only ASCII digits with at most 4 decimals after one point: no sign, exponent, separator, space.
    ValueError says what is wrong; it also refuses what is above 99999999.9999.
    """
    match = _PRICE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"must be a decimal number such as 0.0120, without sign or commas; got {_show(text)}"
        )
    units, decimals = match[1].lstrip("0"), match[2] or ""
    if len(decimals) > 4:
        raise ValueError(
            f"must have at most 4 decimals, because it is never rounded; got {_show(text)}"
        )
    if len(units) > _MAX_UNITS_DIGITS:
        raise ValueError(f"must be 0 to {format_e4(MAX_PRICE_E4)}; got {_show(text)}")
    return int(units or "0") * 10_000 + int(decimals.ljust(4, "0"))


def format_e4(amount_e4: int) -> str:
    """``amount_e4`` as decimal text with exactly 4 decimals: 120 is "0.0120", -1 is "-0.0001"."""
    units, fraction = divmod(abs(amount_e4), 10_000)
    return f"{'-' if amount_e4 < 0 else ''}{units}.{fraction:04d}"


def _show(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
