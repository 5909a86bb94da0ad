"""``make demo``: the real deck and a million calls through a server, with the time of each step.

It is a client like any other: it starts ``tollwire serve`` on an SQLite database in a temporary
folder and calls it by gRPC. Everything is drawn from fixed seeds. DEMO_CALLS sets the number of
calls; DEMO_RATES reduces the deck, for a quick look.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table

from benchmarks.real_deck import SEED, DeckRow, real_deck, real_numbers
from benchmarks.workload import import_messages
from tollwire.client import Client
from tollwire.v1.cdr_service_pb2 import UsageRow
from tollwire.v1.types_pb2 import (
    DIRECTION_INBOUND,
    DIRECTION_INTERNAL,
    DIRECTION_OUTBOUND,
    DISPOSITION_ANSWERED,
    DISPOSITION_BUSY,
    DISPOSITION_CANCELLED,
    DISPOSITION_CONGESTION,
    DISPOSITION_FAILED,
    DISPOSITION_NO_ANSWER,
    ROUNDING_UP,
    USAGE_DIMENSION_DAY,
    USAGE_DIMENSION_DESTINATION,
    Call,
    Direction,
    Disposition,
    Extension,
    Tenant,
    UsageDimension,
)

DEFAULT_CALLS = 1_000_000
CHUNK_CALLS = 10_000
DAYS = 28
FIRST_DAY_SECONDS = 1_772_409_600  # 2026-03-02, a Monday
MIB = 1024 * 1024

# Calls an hour of a working day, from midnight, as weights; a weekend day has a fifth.
HOURS = (1, 1, 1, 1, 1, 2, 5, 14, 42, 74, 80, 76, 58, 64, 78, 76, 66, 44, 22, 14, 10, 7, 4, 2)
WEEKEND = 0.2
DIRECTIONS: dict[Direction.ValueType, int] = {
    DIRECTION_OUTBOUND: 65,
    DIRECTION_INBOUND: 27,
    DIRECTION_INTERNAL: 8,
}
DISPOSITIONS: dict[Disposition.ValueType, int] = {
    DISPOSITION_ANSWERED: 68,
    DISPOSITION_NO_ANSWER: 17,
    DISPOSITION_BUSY: 7,
    DISPOSITION_CANCELLED: 5,
    DISPOSITION_FAILED: 2,
    DISPOSITION_CONGESTION: 1,
}
# Seconds of an answered call: half are below 74, few above half an hour.
DURATION_MU, DURATION_SIGMA = 4.3, 1.2
LONGEST_SECONDS = 4 * 3600
# Invalid numbers: their calls stay UNRATED.
ANONYMOUS_SHARE = 0.001


@dataclass(frozen=True, slots=True)
class Customer:
    """A tenant of the demo, its share of the calls, and its extensions."""

    tenant: Tenant
    share: int
    extensions: list[Extension]


CUSTOMERS = (
    (Tenant(name="Harbour Hotels", currency="EUR", country_code="49"), 7, 240),
    (Tenant(name="Quarry & Sons", currency="EUR", rounding=ROUNDING_UP), 3, 60),
)


@dataclass(slots=True)
class Steps:
    """The time of each step."""

    done: list[tuple[str, float, int, str]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, count: int = 0, what: str = "") -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.done.append((name, time.perf_counter() - started, count, what))

    def table(self) -> Table:
        table = Table("step", box=None, pad_edge=False)
        table.add_column("seconds", justify="right")
        table.add_column("a second", justify="right")
        for name, seconds, count, what in self.done:
            rate = f"{count / seconds:,.0f} {what}" if count else ""
            table.add_row(name, f"{seconds:.1f}", rate)
        return table


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """A server on a database in ``folder``: its address and its process id."""
    command = [
        sys.executable,
        "-m",
        "tollwire.service.cli.main",
        "serve",
        "--listen",
        "127.0.0.1:0",
    ]
    command += ["--database", f"sqlite:///{folder / 'demo.db'}", "--log-level", "WARNING"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"\bon (\S+:\d+)", line)
        if found is None:
            raise SystemExit(f"the server does not serve: {line!r}")
        yield found[1], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def peak_memory_bytes(pid: int) -> int:
    """The peak memory of the process."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    return int(peak[1]) * 1024


def make_customers(client: Client) -> list[Customer]:
    customers = []
    for wanted, share, extensions in CUSTOMERS:
        tenant = client.create_tenant(tenant=wanted)
        customers.append(
            Customer(
                tenant,
                share,
                [
                    client.create_extension(
                        extension=Extension(tenant_id=tenant.id, number=str(1000 + n))
                    )
                    for n in range(extensions)
                ],
            )
        )
    return customers


def import_deck(client: Client, tenant_id: int, deck: list[DeckRow]) -> None:
    answer = client.import_rates(import_messages(deck, tenant_id))
    if answer.created != len(deck):
        raise SystemExit(f"the server refused the deck: {answer}")


def calls(customers: list[Customer], prefixes: list[str], count: int) -> Iterator[Call]:
    """Finished calls in the order of their end, as in a switch's log, by day."""
    draw = random.Random(SEED)
    numbers = real_numbers(prefixes, SEED)
    weights = [hour * (WEEKEND if day % 7 >= 5 else 1) for day in range(DAYS) for hour in HOURS]
    starts = sorted(draw.choices(range(len(weights)), weights, k=count))
    owners = draw.choices(customers, [c.share for c in customers], k=count)
    directions = draw.choices(list(DIRECTIONS), list(DIRECTIONS.values()), k=count)
    dispositions = draw.choices(list(DISPOSITIONS), list(DISPOSITIONS.values()), k=count)
    for hour, owner, direction, disposition in zip(
        starts, owners, directions, dispositions, strict=True
    ):
        extension = owner.extensions[int(draw.random() * len(owner.extensions))]
        outside = next(numbers) if draw.random() >= ANONYMOUS_SHARE else "anonymous"
        inbound = direction == DIRECTION_INBOUND
        seconds = 0
        if disposition == DISPOSITION_ANSWERED:
            drawn = int(draw.lognormvariate(DURATION_MU, DURATION_SIGMA)) + 1
            seconds = min(drawn, LONGEST_SECONDS)
        if direction == DIRECTION_INTERNAL:
            outside = owner.extensions[int(draw.random() * len(owner.extensions))].number
        yield Call(
            tenant_id=owner.tenant.id,
            extension_id=extension.id,
            caller_number=outside if inbound else extension.number,
            destination_number=extension.number if inbound else outside,
            direction=direction,
            disposition=disposition,
            duration_seconds=seconds,
            started_at=Timestamp(
                seconds=FIRST_DAY_SECONDS + hour * 3600 + int(draw.random() * 3600)
            ),
            call_id=f"{draw.getrandbits(128):032x}",
        )


def usage(client: Client, *dimensions: UsageDimension.ValueType) -> list[UsageRow]:
    return list(client.summarize_usage(group_by=dimensions, time_zone="Europe/Berlin").rows)


def usage_table(names: tuple[str, ...], rows: Iterable[UsageRow]) -> Table:
    table = Table(*names, box=None, pad_edge=False)
    for name in ("calls", "answered", "minutes", "cost", "unrated"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            *row.keys,
            f"{row.calls:,}",
            f"{row.answered:,}",
            f"{row.duration_seconds // 60:,}",
            f"{row.cost} {row.currency}",
            f"{row.unrated:,}",
        )
    return table


def main() -> None:
    count = int(os.environ.get("DEMO_CALLS", DEFAULT_CALLS))
    console, steps = Console(highlight=False, soft_wrap=True), Steps()
    with tempfile.TemporaryDirectory(prefix="tollwire-demo-") as name:
        folder = Path(name)
        with steps.step("make the deck"):
            deck = real_deck()
            if "DEMO_RATES" in os.environ:
                deck = deck[:: max(1, len(deck) // int(os.environ["DEMO_RATES"]))]
        started = time.perf_counter()
        with server(folder) as (address, pid), Client(address, environment={}) as client:
            steps.done.append(("start the server", time.perf_counter() - started, 0, ""))
            with steps.step("make two tenants with their extensions"):
                customers = make_customers(client)
            for customer in customers:
                with steps.step(
                    f"import {len(deck):,} rates for {customer.tenant.name}", len(deck), "rates"
                ):
                    import_deck(client, customer.tenant.id, deck)
            # First, so that the time of the upload is the service's and not that of the random
            # numbers.
            with steps.step(f"make {count:,} calls"):
                made = calls(customers, [row.prefix for row in deck], count)
                finished = list(islice(made, count))
            with steps.step(f"upload, rate and store {count:,} calls", count, "calls"):
                sending = client.upload(finished, chunk_calls=CHUNK_CALLS, retries=0)
                totals = sending.result().totals
            with steps.step("add them up by day"):
                by_day = usage(client, USAGE_DIMENSION_DAY)
            with steps.step("add them up by destination"):
                by_destination = usage(client, USAGE_DIMENSION_DESTINATION)
            peak = peak_memory_bytes(pid)
            database = sum(path.stat().st_size for path in folder.iterdir())

    dearest = sorted(by_destination, key=lambda row: Decimal(row.cost), reverse=True)[:10]
    console.print("Usage by day (Europe/Berlin)\n", usage_table(("day",), by_day))
    console.print("\nThe ten most expensive destinations\n", usage_table(("destination",), dearest))
    console.print("\nWhat each step took\n", steps.table())
    console.print(
        f"\n{totals.created:,} CDRs recorded, {totals.unrated:,} of them unrated;"
        f" {totals.duplicates} duplicates, {totals.conflicts} conflicts,"
        f" {totals.rejected} rejected."
        f"\nThe server held at most {peak / MIB:,.0f} MiB of memory;"
        f" the database has {database / MIB:,.0f} MiB."
    )


if __name__ == "__main__":
    main()
