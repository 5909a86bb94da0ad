"""The limits and update masks that docs/api.md and the protos state are those of the code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_type_hints

import pytest
from google.protobuf.descriptor import ServiceDescriptor

from ratingcore import DeckBuilder, RateInfo, max_cost
from tests.contract.curl import REPOSITORY
from tollwire.service.domain import model, paging
from tollwire.service.rating import deck_import, rates
from tollwire.service.rating.rate_checks import check_rate
from tollwire.service.record import cdrs
from tollwire.service.rpc import capacity, endpoints, pools, server
from tollwire.service.settings.config import OPTIONS
from tollwire.v1 import (
    access_service_pb2,
    cdr_service_pb2,
    rating_service_pb2,
    tenant_service_pb2,
    types_pb2,
)

CHAPTER = (REPOSITORY / "docs" / "api.md").read_text("utf-8").partition("\n## Limits\n")[2]
ROWS = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", CHAPTER, re.MULTILINE))
PROTOS = REPOSITORY / "proto" / "tollwire" / "v1"
MIB = 2**20
COST = max_cost(4)


def default(option: str) -> float:
    return float(OPTIONS[option].default)


# The beginning of a row, the beginning of its value, and the numbers in it, from the code.
LIMITS: list[tuple[str, str, Sequence[float]]] = [
    ("`cost_per_minute`, `connect_fee`", "0 to {}", [model.MAX_PRICE_E8 / 10**8]),
    ("`billing_increment`", "1 to {} s", [model.MAX_BILLING_INCREMENT]),
    ("`duration_seconds`, `minimum_seconds`", "0 to {} s", [model.MAX_DURATION_SECONDS]),
    ("`start_seconds` of an interval", "1 to {} s", [model.MAX_DURATION_SECONDS]),
    ("intervals of a rate", "{}", [model.MAX_INTERVALS]),
    ("`cost_decimals`", "{} to {}", [model.MIN_COST_DECIMALS, model.MAX_COST_DECIMALS]),
    ("a rate's prefix, a normalised number", "{} digits", [model.MAX_PREFIX_DIGITS]),
    ("names, `destination`", "{} characters", [model.MAX_NAME_CHARS]),
    ("`call_id`", "{} characters", [model.MAX_CALL_ID_CHARS]),
    ("`extension_number`", "{} characters", [model.MAX_EXTENSION_NUMBER_CHARS]),
    ("`number` of an extension", "{} characters", [model.MAX_EXTENSION_NUMBER_CHARS]),
    ("`reason` of a reversal", "{} characters", [model.MAX_REVERSAL_REASON_CHARS]),
    ("`requested_by`", "{} characters", [model.MAX_REQUESTED_BY_CHARS]),
    (
        "`certificate_identity` of a token",
        "{} characters",
        [model.MAX_CERTIFICATE_IDENTITY_CHARS],
    ),
    ("tenants of a token", "{}, or all", [model.MAX_TOKEN_TENANTS]),
    ("calls in one message", "{}", [model.MAX_BATCH_CALLS]),
    (
        "bytes in one request message",
        "{} KiB; {} MiB for `BatchRateCalls`, {} MiB for `ReverseCdrs`, {} MiB for each message of"
        " a stream of requests",
        [
            capacity.SMALL_BYTES / 1024,
            endpoints._MAX_BYTES["RatingService/BatchRateCalls"] / MIB,
            endpoints._MAX_BYTES["CdrService/ReverseCdrs"] / MIB,
            endpoints.MAX_REQUEST_BYTES / MIB,
        ],
    ),
    ("metadata of a request", "{} KiB", [server.MAX_METADATA_BYTES / 1024]),
    ("health checks at a time", "{} for each worker", [pools.HEALTH_SLOTS]),
    ("`page_size`", "{}", [paging.MAX_PAGE_SIZE]),
    ("errors listed by `ImportRates`", "the first {}", [deck_import.MAX_ERRORS]),
    ("rates of a deck in `ImportRates`", "{}", [deck_import.MAX_DECK_RATES]),
    ("rates of one prefix", "{}", [model.MAX_PREFIX_RATES]),
    ("rates of a tenant", "{}", [default("max_tenant_rates")]),
    ("memory of the rates of all tenants", "{} GiB", [default("max_deck_bytes") / 2**30]),
    ("memory for the imports in progress", "{} GiB", [deck_import.MAX_INTAKE_BYTES / 2**30]),
    ("streams at a time", "{} for each worker", [default("max_streams")]),
    ("unary RPCs at a time", "{} for each worker", [default("max_rpcs")]),
    (
        "bytes of requests in progress",
        "{} MiB for each worker (`--max-request-bytes-in-work`). While a `BatchRateCalls` is read,"
        " it counts with {} MiB; one that finds less waits for up to {} s, and one whose message"
        " takes longer than {} s",
        [
            default("max_request_bytes_in_work") / MIB,
            endpoints._MAX_BYTES["RatingService/BatchRateCalls"] / MIB,
            capacity.MEMORY_WAIT_SECONDS,
            pools.PATIENCE_SECONDS,
        ],
    ),
    (
        "time for the one message of an RPC",
        "{} s from its start, {} s for health",
        [pools.ARRIVAL_SECONDS, pools.HEALTH_ARRIVAL_SECONDS],
    ),
    ("connections at a time", "{} for each worker", [default("max_connections")]),
    ("pings by a client", "one in {} s", [server.MIN_PING_INTERVAL_MS / 1000]),
    (
        "chunks of `UploadCdrs` in progress at a time",
        "{} for a single worker, else {} for each",
        [capacity.chunks_at_once(1), capacity.chunks_at_once(2)],
    ),
    ("RPCs of one connection at a time", "{}", [server.MAX_RPCS_A_CONNECTION]),
]


def shown(number: float) -> str:
    return f"{number:,.8f}".rstrip("0").rstrip(".")


@pytest.mark.parametrize(("what", "limit", "numbers"), LIMITS, ids=[row[0] for row in LIMITS])
def test_a_limit_is_that_of_the_code(what: str, limit: str, numbers: Sequence[float]) -> None:
    assert ROWS[what].startswith(limit.format(*map(shown, numbers)))


def test_numbers_and_searches_have_one_limit() -> None:
    row = ROWS["`caller_number`, `destination_number`, `search`"]
    assert {model.MAX_NUMBER_CHARS, rates.MAX_SEARCH_CHARS, cdrs.MAX_SEARCH_CHARS} == {256}
    assert row == "256 characters"


def test_the_highest_cost_is_that_of_the_core() -> None:
    text = str(COST)
    highest = f"{int(text[:-4]):,}.{text[-4:]}"
    assert ROWS["a cost with 4 decimals"].startswith(highest)
    digits = [len(str(max_cost(decimals))) - decimals for decimals in range(5, 9)]
    row = ROWS["with 5, 6, 7, 8 decimals"]
    assert row.startswith(f"{', '.join(map(str, digits))} digits before the point")


SERVICES: list[ServiceDescriptor] = [
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (rating_service_pb2, "RatingService"),
        (cdr_service_pb2, "CdrService"),
        (tenant_service_pb2, "TenantService"),
        (access_service_pb2, "AccessService"),
    )
]
# Fields that a mask cannot name: set by the server, or fixed.
FIXED = {"id", "tenant_id", "etag", "created_at", "updated_at", "rate_revision"}


@pytest.mark.parametrize("resource", ["Rate", "Tenant", "Extension"])
def test_the_comment_of_a_mask_names_every_field_that_can_be_changed(resource: str) -> None:
    protos = "".join(path.read_text("utf-8") for path in sorted(PROTOS.glob("*_service.proto")))
    message = protos.partition(f"message Update{resource}Request {{")[2].partition("\n}")[0]
    comment = re.sub(r"\s*\n\s*// ", " ", message)
    found = re.search(r"update_mask names the fields to change: (.+?), or \"\*\"", comment)
    assert found is not None
    fields = {field.name for field in types_pb2.DESCRIPTOR.message_types_by_name[resource].fields}
    named = set(found[1].removeprefix("any but ").split(", "))
    fixed = fields & FIXED
    assert named == (fixed if found[1].startswith("any but ") else fields - fixed)


def test_every_update_has_a_mask() -> None:
    updates = [
        method for one in SERVICES for method in one.methods if method.name.startswith("Update")
    ]
    assert {method.name for method in updates} == {"UpdateRate", "UpdateTenant", "UpdateExtension"}
    assert all("update_mask" in method.input_type.fields_by_name for method in updates)


# The lowest and the highest value of each numeric term of a rate, by its name in RateInfo.
RANGES = {
    "cost_per_minute_e8": (0, model.MAX_PRICE_E8),
    "billing_increment": (1, model.MAX_BILLING_INCREMENT),
    "connect_fee_e8": (0, model.MAX_PRICE_E8),
    "minimum_seconds": (0, model.MAX_DURATION_SECONDS),
}
PLAIN: Any = model.Rate(tenant_id=1, prefix="44", cost_per_minute_e8=1, billing_increment=1)


def test_every_numeric_term_of_a_rate_has_a_range() -> None:
    numbers = {name for name, kind in get_type_hints(RateInfo).items() if kind is int}
    assert numbers - {"version_id", "rate_id"} == RANGES.keys()


@pytest.mark.parametrize("name", RANGES)
def test_the_service_and_the_core_have_the_same_range_for_a_term(name: str) -> None:
    least, most = RANGES[name]
    for value, is_allowed in ((least, True), (most, True), (least - 1, False), (most + 1, False)):
        violations = check_rate(replace(PLAIN, **{name: value}))
        assert (not violations) == is_allowed, f"service/rating/rate_checks.py: {name} {value}"
        terms: dict[str, Any] = {"cost_per_minute_e8": 1, "billing_increment": 1} | {name: value}
        try:
            DeckBuilder().put(1, 1, "44", "", **terms)
        except ValueError:
            assert not is_allowed, f"ratingcore/pricing/terms.pyx refuses {name} {value}"
        else:
            assert is_allowed, f"ratingcore/pricing/terms.pyx accepts {name} {value}"
