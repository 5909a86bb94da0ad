"""Computes the price changes of a deck: prefixes that become dearer or cheaper, are new or deleted.

A preview of an import, computed from the current rates and the deck. The server decides what an
import does; this module follows the same rules and sends nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from tollwire.service.cli.deck_csv import COLUMNS
from tollwire.v1.types_pb2 import Rate

# Seconds and nanoseconds. The limits of the range replace open ends.
Instant = tuple[int, int]
_FIRST: Instant = (-(2**63), 0)
_LAST: Instant = (2**63, 0)

DEARER, CHEAPER, NEW, GONE, OTHER = "dearer", "cheaper", "new", "gone", "other terms"
KINDS = (DEARER, CHEAPER, NEW, GONE, OTHER)
# The columns of a deck that have their own field in Terms. All other columns also change the cost.
_OF_TERMS = {
    "prefix",
    "destination",
    "cost_per_minute",
    "effective_from",
    "effective_to",
    "blocked",
}
_OTHERS = tuple(name for name in COLUMNS if name not in _OF_TERMS)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one prefix within one period."""

    start: Instant
    end: Instant
    destination: str
    price: Decimal
    blocked: bool
    # The other columns that change the cost: name on the wire, and value.
    others: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """The change of a prefix from ``start`` (None: from now). ``percent`` is empty if no percentage
    can be given."""

    kind: str
    prefix: str
    destination: str
    start: Instant | None
    old_price: str
    new_price: str
    percent: str
    other: str


def deck_changes(
    present: Iterable[Rate],
    deck: Iterable[Rate],
    now: Instant,
    effective_from: Instant | None,
    *,
    replace: bool,
) -> Iterator[Change]:
    """The changes by kind, the largest percentage first. Rates that have ended are left out."""
    begins = _FIRST if effective_from is None else effective_from
    old = _by_prefix(present, _FIRST)
    new = _by_prefix(deck, begins)
    found: list[Change] = []
    for prefix, terms in new.items():
        found.extend(_of_prefix(prefix, old.get(prefix, []), terms, now, effective_from, replace))
    if replace:
        at = max(now, begins)
        for prefix in old.keys() - new.keys():
            gone = _in_effect(old[prefix], at) or _next(old[prefix], at)
            if gone is not None:
                start = None if at == now else at
                found.append(
                    Change(GONE, prefix, gone.destination, start, _shown(gone), "", "", "")
                )
    found.sort(key=lambda one: (KINDS.index(one.kind), -abs(_number(one.percent)), one.prefix))
    yield from found


def _of_prefix(
    prefix: str,
    old: Sequence[Terms],
    deck: Sequence[Terms],
    now: Instant,
    effective_from: Instant | None,
    replace: bool,
) -> Iterator[Change]:
    keys = {one.start for one in deck}
    kept = [one for one in old if one.start not in keys]
    if replace:
        kept = [] if effective_from is None else [one for one in kept if one.start < effective_from]
    for at in sorted({max(now, one.start) for one in deck}):
        after = _in_effect([*deck, *kept], at)
        if after is None or after not in deck:
            continue
        before = _in_effect(old, at)
        change = _change(prefix, before, after, None if at == now else at)
        if change is not None:
            yield change


def _change(
    prefix: str, before: Terms | None, after: Terms, start: Instant | None
) -> Change | None:
    price = _shown(after)
    if before is None:
        return Change(NEW, prefix, after.destination, start, "", price, "", "")
    old_others = dict(before.others)
    other = "; ".join(
        f"{name} {old_others[name] or 'none'} -> {value or 'none'}"
        for name, value in after.others
        if old_others[name] != value
    )
    kind = OTHER
    if not before.blocked and not after.blocked and before.price != after.price:
        kind = DEARER if after.price > before.price else CHEAPER
    elif not other and before.blocked == after.blocked:
        return None
    percent = ""
    if kind != OTHER and before.price:
        percent = f"{(after.price - before.price) * 100 / before.price:+.1f}"
    return Change(kind, prefix, after.destination, start, _shown(before), price, percent, other)


def _by_prefix(rates: Iterable[Rate], begins: Instant) -> dict[str, list[Terms]]:
    """``begins``: the start of rates without an effective_from. Rates with an invalid price are
    left out: the server rejects them."""
    found: dict[str, list[Terms]] = defaultdict(list)
    for rate in rates:
        try:
            terms = _terms(rate, begins)
        except InvalidOperation:
            continue
        found[rate.prefix.removeprefix("+")].append(terms)
    return found


def _other(rate: Rate, name: str) -> str:
    if name == "connect_fee":
        return f"{Decimal(rate.connect_fee or '0').normalize():f}"
    if name == "intervals":
        parts = (
            f"{part.start_seconds} s: {Decimal(part.cost_per_minute).normalize():f}"
            f"/{part.billing_increment}"
            for part in rate.intervals
        )
        return ", ".join(parts)
    return str(getattr(rate, name) or "")


def _terms(rate: Rate, begins: Instant) -> Terms:
    start, end = begins, _LAST
    if rate.HasField("effective_from"):
        start = (rate.effective_from.seconds, rate.effective_from.nanos)
    if rate.HasField("effective_to"):
        end = (rate.effective_to.seconds, rate.effective_to.nanos)
    others = tuple((name, _other(rate, name)) for name in _OTHERS)
    price = Decimal(rate.cost_per_minute)
    return Terms(start, end, rate.destination, price, rate.blocked, others)


def _in_effect(rates: Iterable[Terms], at: Instant) -> Terms | None:
    """The terms in effect; if there are several, those with the latest start."""
    found = [one for one in rates if one.start <= at < one.end]
    return max(found, key=lambda one: one.start, default=None)


def _next(rates: Iterable[Terms], at: Instant) -> Terms | None:
    return min((one for one in rates if one.start > at), key=lambda one: one.start, default=None)


def _shown(terms: Terms) -> str:
    """The price, with at least four decimals."""
    if terms.blocked:
        return "blocked"
    price = terms.price.normalize()
    exponent = price.as_tuple().exponent
    decimals = -exponent if isinstance(exponent, int) else 0
    return f"{price:.{max(4, decimals)}f}"


def _number(percent: str) -> float:
    return float(percent or 0)
