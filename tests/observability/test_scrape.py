"""All workers of a real server in one scrape."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from benchmarks.serving import worker_processes
from tests.integration.client import Client
from tests.integration.serving import ServerProcess
from tests.observability.scraping import UPLOAD, Scrape, metrics_address, some_work, wait_until


@pytest.fixture
def scrape(observed: ServerProcess) -> Scrape:
    return Scrape(metrics_address(observed))


def test_rpcs_by_method_and_code(scrape: Scrape) -> None:
    assert scrape.sum("tollwire_rpcs_total", method="RatingService/RateCall", code="OK") == 2
    for code in ("NOT_FOUND", "FAILED_PRECONDITION"):
        assert scrape.sum("tollwire_rpcs_total", method="RatingService/RateCall", code=code) == 1
    assert scrape.sum("tollwire_rpcs_total", method=UPLOAD, code="OK") == 1
    assert scrape.sum("tollwire_rpc_seconds_count", method="RatingService/RateCall") == 4
    assert scrape.sum("tollwire_rpc_seconds_sum", method="RatingService/RateCall") > 0


@pytest.mark.parametrize(
    ("method", "status", "reason", "calls"),
    [
        ("RatingService/RateCall", "RATED", "", 1),
        ("RatingService/RateCall", "NOT_BILLABLE", "", 1),
        ("RatingService/RateCall", "UNRATED", "NO_RATE", 1),
        ("RatingService/RateCall", "UNRATED", "BLOCKED", 1),
        ("RatingService/BatchRateCalls", "RATED", "", 1),
        ("RatingService/BatchRateCalls", "NOT_BILLABLE", "", 1),
        ("RatingService/BatchRateCalls", "UNRATED", "INVALID_NUMBER", 1),
        ("CdrService/CreateCdr", "RATED", "", 1),
        (UPLOAD, "RATED", "", 2),
        (UPLOAD, "UNRATED", "NO_RATE", 1),
        (UPLOAD, "UNRATED", "BLOCKED", 1),
        (UPLOAD, "UNRATED", "INVALID_NUMBER", 1),
    ],
)
def test_calls_by_outcome(
    scrape: Scrape, method: str, status: str, reason: str, calls: int
) -> None:
    labels = {"method": method, "status": status, "reason": reason}
    assert scrape.all("tollwire_calls_rated_total", **labels) == [(labels, calls)]


def test_records_by_outcome(scrape: Scrape) -> None:
    def records(method: str) -> dict[str, float]:
        found = scrape.all("tollwire_records_total", method=method)
        return {labels["outcome"]: value for labels, value in found if value}

    assert records("CdrService/CreateCdr") == {"created": 1, "duplicate": 1}
    assert records(UPLOAD) == {"created": 5, "duplicate": 1, "conflict": 1, "rejected": 1}
    assert scrape.sum("tollwire_upload_chunk_seconds_count") == 1


def test_each_worker_has_its_gauges(scrape: Scrape) -> None:
    for worker in ("0", "1"):
        assert scrape.sum("tollwire_worker_up", worker=worker) == 1
        assert scrape.sum("tollwire_tenants_loaded", worker=worker) == 1
        assert scrape.sum("tollwire_rates_loaded", worker=worker) == 2
        assert scrape.sum("tollwire_rate_change_number", worker=worker) >= 3
        assert 0 <= scrape.sum("tollwire_rate_lag_seconds", worker=worker) < 60
        assert scrape.sum("tollwire_database_connections_limit", worker=worker) > 0
        states = {labels["state"] for labels, _ in scrape.all("tollwire_database_connections")}
        assert states == {"in_use", "idle"}
        services = {labels["service"] for labels, _ in scrape.all("tollwire_health")}
        assert {"server", "RatingService", "CdrService", "TenantService"} <= services
        for service in services:
            assert scrape.sum("tollwire_health", worker=worker, service=service) == 1
    for worker in ("0", "1", "supervisor"):
        assert scrape.sum("tollwire_process_resident_bytes", worker=worker) > 10_000_000
        for name in ("threads", "open_fds", "open_fds_limit", "cpu_seconds_total"):
            assert scrape.sum(f"tollwire_process_{name}", worker=worker) > 0
    assert scrape.sum("tollwire_build_info") == 1


def test_the_unrated_are_counted_in_the_background(observed: ServerProcess) -> None:
    address = metrics_address(observed)
    wait_until(lambda: Scrape(address).all("tollwire_unrated_cdrs") != [])
    found = Scrape(address)
    assert {labels["reason"] for labels, _ in found.all("tollwire_unrated_cdrs")} == {
        "NO_RATE",
        "BLOCKED",
        "INVALID_NUMBER",
    }
    assert len(found.all("tollwire_unrated_oldest_seconds")) == 3


@pytest.mark.timeout(300)
def test_the_counts_of_a_dead_worker_are_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tollwire.db"
    with (
        ServerProcess(url, workers=2, TOLLWIRE_METRICS_LISTEN="127.0.0.1:0") as server,
        Client(server.address) as client,
    ):
        some_work(client)
        address = metrics_address(server)
        before = Scrape(address)
        for worker in worker_processes(server.process.pid):
            worker.send_signal(signal.SIGKILL)
        wait_until(lambda: Scrape(address).sum("tollwire_worker_starts_total") == 4)
        wait_until(lambda: Scrape(address).sum("tollwire_worker_up") == 2)
        after = Scrape(address)
        for name in ("tollwire_rpcs_total", "tollwire_calls_rated_total", "tollwire_records_total"):
            assert counted(after, name) == counted(before, name)
        some_work(client)
        # A worker without a response yet is shown with its last values.
        wait_until(lambda: Scrape(address).sum("tollwire_records_total", outcome="created") == 12)


def counted(scrape: Scrape, name: str) -> list[tuple[list[str], float]]:
    """The sum of each series, in one order."""
    found = [(sorted(labels.values()), value) for labels, value in scrape.all(name) if value]
    return sorted(found)


def test_a_port_in_use_stops_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for workers in (1, 2):
            with pytest.raises(RuntimeError, match=f"--metrics-listen: cannot listen on {address}"):
                ServerProcess(
                    f"sqlite:///{tmp_path}/tollwire.db",
                    workers=workers,
                    TOLLWIRE_METRICS_LISTEN=address,
                )
