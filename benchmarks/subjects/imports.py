"""ImportRates of the real deck into an empty tenant, from the first byte sent until the server
rates with it, against the same rows written to a bare table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import databases, load, serving, workload
from benchmarks.databases import table_of
from benchmarks.harness import Row, agreed, at_most, compared, digest, in_turns, over_baseline
from benchmarks.real_deck import DeckRow
from benchmarks.workbench import TENANT_ID, Workbench, make_tenant
from tollwire.client import Client
from tollwire.service.storage.schema.tenant_tables import OPEN_FROM_S, OPEN_TO_S, RateVersionRow
from tollwire.v1.rating_service_pb2 import (
    ExportRatesRequest,
    ImportRatesResponse,
    RateCallRequest,
)
from tollwire.v1.rating_service_pb2_grpc import RatingServiceStub

COLUMNS = tuple(RateVersionRow.__table__.c.keys())


def run(bench: Workbench) -> Iterator[Row]:
    requests = list(workload.import_messages(bench.rows, TENANT_ID))
    requests[0].rate_count = len(bench.rows)  # as the command states it
    messages = [request.SerializeToString() for request in requests]
    rows = rate_rows([bench.rows])
    expected = digest([(row.prefix, row.cost_per_minute) for row in bench.rows])
    for kind in databases.KINDS:
        digests: list[str] = []
        taken = in_turns(
            {
                "import": lambda: _import_s(bench, kind, messages, digests),  # noqa: B023
                "bare": lambda: _bare_s(bench, kind, rows),  # noqa: B023
            },
            bench.size(3, 1),
        )
        yield compared(
            f"ImportRates of the real deck, {kind}",
            "s",
            taken["import"],
            "executemany, bare table" if kind == "sqlite" else "binary COPY, bare table",
            taken["bare"],
            over_baseline,
            "times the baseline",
            budget=at_most(2),
            digest=agreed("the exported deck", expected, *digests),
            note=f"{len(rows):,} rates, until a RateCall answers with the new revision; a fresh"
            " database each time",
        )


def _import_s(bench: Workbench, kind: str, messages: list[bytes], digests: list[str]) -> float:
    number = bench.prefixes[-1]
    with (
        bench.databases.fresh(kind) as url,
        serving.tollwire(url) as server,
        Client(server.address, environment={}) as client,
        load.channel(server.address) as channel,
    ):
        make_tenant(client)
        call = workload.wire_calls(
            workload.real_calls([number], 1), TENANT_ID, ["0123456789abcdef"]
        )[0]
        rating = RatingServiceStub(channel)
        take: Any = channel.stream_unary("/tollwire.v1.RatingService/ImportRates")
        started = time.perf_counter()
        answer = ImportRatesResponse.FromString(take(iter(messages)))
        rated = rating.RateCall(RateCallRequest(call=call), timeout=30).rated
        seconds = time.perf_counter() - started
        if rated.rate_revision < answer.rate_revision:
            raise AssertionError("the worker that imported the deck does not rate with it")
        exported = rating.ExportRates(ExportRatesRequest(tenant_id=TENANT_ID))
        digests.append(
            digest(
                [(rate.prefix, rate.cost_per_minute) for part in exported for rate in part.rates]
            )
        )
    return seconds


def _bare_s(bench: Workbench, kind: str, rows: list[tuple[object, ...]]) -> float:
    with bench.databases.bare_table(
        kind, table_of(RateVersionRow), COLUMNS, indexes=False
    ) as table:
        started = time.perf_counter()
        table.write(rows)
        seconds = time.perf_counter() - started
        agreed(
            "rows written", str(len(rows)), str(table.scalar("SELECT count(*) FROM rate_versions"))
        )
    return seconds


def rate_rows(decks: Sequence[Sequence[DeckRow]]) -> list[tuple[object, ...]]:
    """The decks of tenants 1, 2, ... as rows of ``rate_versions``, as imports into empty tenants
    leave them."""
    now_ns = time.time_ns()
    same = {
        "created_revision": 2,
        "retired_revision": None,
        "connect_fee_e8": 0,
        "minimum_seconds": 0,
        "intervals": None,
        "effective_from_s": OPEN_FROM_S,
        "effective_from_nanos": 0,
        "effective_to_s": OPEN_TO_S,
        "effective_to_nanos": 0,
        "blocked": False,
        "created_at_ns": now_ns,
        "updated_at_ns": now_ns,
    }
    owned = ((tenant_id, row) for tenant_id, deck in enumerate(decks, 1) for row in deck)
    values = (
        same
        | {
            "version_id": number,
            "rate_id": number,
            "tenant_id": tenant_id,
            "prefix": row.prefix,
            "destination": row.destination,
            "cost_per_minute_e8": workload.price_e8(row),
            "billing_increment": row.billing_increment,
        }
        for number, (tenant_id, row) in enumerate(owned, 1)
    )
    return [tuple(value[name] for name in COLUMNS) for value in values]
