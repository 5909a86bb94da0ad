"""Contents of calls, from which records are made, and the decks that rate them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from ratingcore import Deck, DeckBuilder
from ratingcore.record.key_order import in_key_order
from ratingcore.record.record_rating import rate_records
from ratingcore.record.records import Records, records_of
from ratingcore.record.values import Content

MAX_PRICE_E8 = 999_999_999_999


def content(tenant_id: int = 1, call_id: str = "", **fields: Any) -> Content:
    values: dict[str, Any] = {
        "extension_id": 0,
        "caller_number": "",
        "destination_number": "4420",
        "direction": 2,
        "disposition": 1,
        "duration_seconds": 7,
        "started_at_ns": 10**18,
        "ended_at_ns": None,
    }
    assert fields.keys() <= values.keys()
    return Content(tenant_id, call_id, **(values | fields))


def deck(revision: int = 3) -> Deck:
    builder = DeckBuilder()
    builder.put(2**40, 1, "44", "", 200, 6)
    builder.put(2**40 + 1, 2, "45", "", 600, 60, blocked=True)
    builder.put(2**40 + 2, 3, "46", "", 600, 60, effective_from_ns=0)
    builder.put(2**40 + 3, 4, "99", "", MAX_PRICE_E8, 60)
    return builder.build(revision, cost_decimals=8)


COST_OVERFLOW = {"destination_number": "99", "duration_seconds": 2**31 - 1}
IDS = st.sampled_from([1, 2, 2**63 - 1])
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
CALL_IDS = st.sampled_from(["a", "b", "é", "12345678", "123456789", "12345678\x01"]) | TEXTS
CONTENTS = st.builds(
    content,
    tenant_id=IDS,
    call_id=CALL_IDS,
    extension_id=st.sampled_from([0, 1, 2**63 - 1]),
    caller_number=TEXTS,
    destination_number=TEXTS | st.sampled_from(["44", "+45", "46", "99", "99123"]),
    direction=st.integers(1, 3),
    disposition=st.integers(1, 6),
    duration_seconds=st.sampled_from([0, 1, 63, 2**31 - 1]),
    started_at_ns=st.integers(0, 2**63 - 2),
    ended_at_ns=st.none() | st.integers(0, 2**63 - 2),
)
LISTS = st.lists(st.none() | CONTENTS, max_size=24)
DECKS = {tenant_id: deck(tenant_id) for tenant_id in (1, 2, 2**63 - 1)}


def rated(contents: Sequence[Content | None]) -> tuple[Records, array[int]]:
    records = records_of(contents)
    order = in_key_order(records)
    rate_records(records, order, DECKS)
    return records, order


def good(contents: Sequence[Content | None]) -> list[int]:
    return [position for position, one in enumerate(contents) if one is not None]
