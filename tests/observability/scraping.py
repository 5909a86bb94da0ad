"""Reads a server's metrics like Prometheus, and sends requests to count."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable

import grpc
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.client import INBOUND, NOON_NS, Client, chunk, make_call, refused
from tests.integration.serving import ServerProcess

SECONDS = 20
_PORT = re.compile(r"metrics are at http://127\.0\.0\.1:(\d+)/metrics")

# The time that new workers may take to start on a busy machine.
PATIENCE_SECONDS = 100

UPLOAD = "CdrService/UploadCdrs"


class Scrape:
    """One page of metrics."""

    def __init__(self, address: str) -> None:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=SECONDS) as response:
            self.page = response.read().decode()
        self.families = list(text_string_to_metric_families(self.page))

    def all(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """The samples of that name with these labels, and possibly others."""
        return [
            (sample.labels, sample.value)
            for family in self.families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def sum(self, name: str, **labels: str) -> float:
        return sum(value for _, value in self.all(name, **labels))


def metrics_address(server: ServerProcess) -> str:
    """The address of the metrics that the server prints."""
    found = _PORT.search(server.log())
    assert found is not None, server.log()
    return f"127.0.0.1:{found[1]}"


def some_work(client: Client) -> int:
    """One call of each outcome by each method, and records of each kind. Returns the tenant."""
    tenant_id = client.new_tenant().id
    client.new_rate(tenant_id, "44", "0.0200", 6)
    client.new_rate(tenant_id, "4490", blocked=True)
    good, inbound = make_call(tenant_id), make_call(tenant_id, direction=INBOUND)
    no_rate, blocked = make_call(tenant_id, "33123"), make_call(tenant_id, "44901")
    no_number = make_call(tenant_id, "none")
    client.rate(good)
    client.rate(inbound)
    for call, code, reason in (
        (no_rate, "NOT_FOUND", "NO_RATE"),
        (blocked, "FAILED_PRECONDITION", "BLOCKED"),
    ):
        with refused(grpc.StatusCode[code], reason):
            client.rate(call)
    every = [good, inbound, no_rate, blocked, no_number]
    client.batch(every)
    client.create_cdr(make_call(tenant_id, call_id="single"))
    client.create_cdr(make_call(tenant_id, call_id="single"))
    calls = [
        make_call(tenant_id, call.destination_number, call_id=f"c{at}", started_at=NOON_NS + at)
        for at, call in enumerate(every)
    ]
    again = make_call(tenant_id, call_id="c0", started_at=NOON_NS)
    conflict = make_call(tenant_id, call_id="c0", started_at=NOON_NS + 1)
    rejected = make_call(0, call_id="bad")
    client.upload(chunk([*calls, again, conflict, rejected]))
    return tenant_id


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
