"""The compiled rating core: which rate a call falls under, and what it costs, exactly.

It holds a tenant's rates as a ``Deck``, immutable and shared between threads, in which the longest
prefix of a number is found in nanoseconds; a ``DeckBuilder`` makes the next deck from the last one
and a few changes in milliseconds; an ``IncomingDeck`` takes a deck from an import's bytes and
finds what is new in it. Beside rating, it holds two protobuf codecs (calls and rates), PostgreSQL's
binary COPY format, and the digests of the ledger and of uploads. It knows no gRPC, no SQL and no
service, and imports the standard library only. Without the compiled modules the import fails; there
is no slow path.

The folders, each importing only those before it: ``base``, ``pricing``, ``index``, ``deck``,
``wire``, ``record``.

The types of a rate:

* ``RateInfo``: a rate as Python puts it in and gets it out;
* ``terms_t``: what a rate charges by; rates with equal terms share one;
* ``rate_terms_t``: terms and a destination, as a deck and an import store them for each rate;
* ``window_t``, ``change_t``, ``incoming_t``: a rate of a deck, a change to a deck, a rate of an
  import; each has the ids, the period of validity, and the number of the rate terms;
* ``wire_rate_t``: a rate as it was sent, with its texts, not checked;
* ``kept_rate_t``: one version of a rate, by which stored CDRs are recomputed.

The rules are the rating rules of docs/api.md. Prices are integers scaled by 10^8 (``…_e8``), a
cost is one scaled by 10**cost_decimals of its tenant (``cost_scaled``), times
are integer nanoseconds since 1970 (``…_ns``), durations whole seconds. Two things that the rules
leave to the reader:

* Intervals (rule 7): a part of the call that reaches the next interval's start is billed exactly as
  long as it is. The part in which the call ends is rounded up to its own increment, also where that
  goes past a start that the call did not reach.
* A minimum (rule 5) stretches the call before it is cut into those parts.
"""

from .deck.builder import DeckBuilder
from .deck.deck import Deck, Rating
from .pricing.money import charge, max_cost
from .pricing.number import normalize_number, normalize_prefix
from .pricing.values import Columns, ConsideredRate, Explanation, Matches, RateInfo, Step
from .wire.incoming_deck import IncomingDeck
from .wire.rate_parse import read_head

# Rating.status and Columns.status, as on the wire; REFUSED is the core's own.
REFUSED = 0
RATED = 1
NOT_BILLABLE = 2
UNRATED = 3

# Rating.unrated_reason, as on the wire; 0 for every other status.
NO_RATE = 1
BLOCKED = 2
INVALID_NUMBER = 3

# Roundings, as on the wire.
HALF_UP = 1
HALF_EVEN = 2
UP = 3
DOWN = 4


__all__ = [
    "BLOCKED",
    "DOWN",
    "HALF_EVEN",
    "HALF_UP",
    "INVALID_NUMBER",
    "NOT_BILLABLE",
    "NO_RATE",
    "RATED",
    "REFUSED",
    "UNRATED",
    "UP",
    "Columns",
    "ConsideredRate",
    "Deck",
    "DeckBuilder",
    "Explanation",
    "IncomingDeck",
    "Matches",
    "RateInfo",
    "Rating",
    "Step",
    "charge",
    "max_cost",
    "normalize_number",
    "normalize_prefix",
    "read_head",
]
