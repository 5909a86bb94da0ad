"""Streams: their number is limited, and they end correctly, whichever side ends them."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.rpc.running import DEADLINE_SECONDS, Running, connected, refusal, running
from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.streams import StreamOver
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import rating_service_pb2_grpc, types_pb2

SERVICE = pb.DESCRIPTOR.services_by_name["RatingService"]
MAX_STREAMS = 3


class Servicer:
    """Echoes revisions. ``seen`` gets the events of the handlers; ``go`` lets waiting ones
    continue."""

    def __init__(self) -> None:
        self.seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.go = threading.Event()

    def hear(self) -> Any:
        return self.seen.get(timeout=DEADLINE_SECONDS)

    def GetRate(self, request: pb.GetRateRequest, context: Any) -> types_pb2.Rate:
        return types_pb2.Rate(id=request.id)

    def StreamRateCalls(
        self, requests: Iterator[pb.StreamRateCallsRequest], context: Any
    ) -> Iterator[pb.StreamRateCallsResponse]:
        try:
            for request in requests:
                self.seen.put(len(request.calls))
                if len(request.calls) > 1:
                    assert self.go.wait(DEADLINE_SECONDS)
                yield pb.StreamRateCallsResponse(
                    rated=[types_pb2.RatedCall(rate_revision=len(request.calls))]
                )
        finally:
            self.seen.put("left")

    def ImportRates(
        self, requests: Iterator[pb.ImportRatesRequest], context: Any
    ) -> pb.ImportRatesResponse:
        self.seen.put("open")
        try:
            created = sum(len(request.rates) for request in requests)
        except StreamOver:
            self.seen.put("broken off")
            raise
        self.seen.put("complete")
        return pb.ImportRatesResponse(created=created)

    def ExportRates(
        self, request: pb.ExportRatesRequest, context: Any
    ) -> Iterator[pb.ExportRatesResponse]:
        try:
            for number in range(request.tenant_id):
                yield pb.ExportRatesResponse(rates=[types_pb2.Rate(id=number)])
                if number == 0:
                    self.seen.put("first")
                    assert self.go.wait(DEADLINE_SECONDS)
        finally:
            self.seen.put("left")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The methods that no test here calls."""
        if name not in SERVICE.methods_by_name:
            raise AttributeError(name)

        def unused(request: Any, context: Any) -> Any:
            raise AssertionError(name)

        return unused


class Talk:
    """A client's side of a stream, one message at a time."""

    def __init__(self, channel: grpc.Channel, method: str = "StreamRateCalls") -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        stub = rating_service_pb2_grpc.RatingServiceStub(channel)
        self.call = getattr(stub, method)(iter(self._requests.get, None), timeout=60)

    def say(self, calls: int = 1) -> None:
        self._requests.put(pb.StreamRateCallsRequest(calls=[types_pb2.Call()] * calls))

    def ask(self, calls: int = 1) -> int:
        self.say(calls)
        return self.hear()

    def hear(self) -> int:
        return next(self.call).rated[0].rate_revision

    def finish(self) -> None:
        self._requests.put(None)


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
def server(
    servicer: Servicer, transport: str, caplog: pytest.LogCaptureFixture
) -> Iterator[Running]:
    with running(SERVICE, servicer, max_streams=MAX_STREAMS, transport=transport) as server:
        yield server
        servicer.go.set()
    # None of this is a defect, nor a warning.
    assert [line for line in caplog.records if line.levelno > logging.WARNING] == []


def get_rate(channel: grpc.Channel) -> int:
    stub = rating_service_pb2_grpc.RatingServiceStub(channel)
    return stub.GetRate(pb.GetRateRequest(id=7), timeout=DEADLINE_SECONDS).id


def test_a_stream_too_many_is_refused_at_once_and_unary_calls_go_on(server: Running) -> None:
    talks = [Talk(server.channel) for _ in range(MAX_STREAMS)]
    assert [talk.ask() for talk in talks] == [1] * MAX_STREAMS
    found = refusal(lambda: list(Talk(server.channel).call))
    assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    assert found.retry_seconds == 1.0
    # Each kind has slots of its own.
    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    assert stub.ImportRates(iter([]), timeout=DEADLINE_SECONDS) == pb.ImportRatesResponse()
    assert [get_rate(server.channel) for _ in range(20)] == [7] * 20
    assert [talk.ask() for talk in talks] == [1] * MAX_STREAMS
    for talk in talks:
        talk.finish()
        assert list(talk.call) == []


def test_a_slot_is_free_when_the_client_gets_the_end(server: Running) -> None:
    others = [Talk(server.channel) for _ in range(MAX_STREAMS - 1)]
    assert [talk.ask() for talk in others] == [1] * (MAX_STREAMS - 1)
    for _ in range(50):
        talk = Talk(server.channel)
        assert talk.ask() == 1
        talk.finish()
        assert list(talk.call) == []
    for talk in others:
        talk.finish()


def test_a_refused_and_a_failed_stream_release_their_slots(server: Running) -> None:
    malformed = server.channel.stream_stream("/tollwire.v1.RatingService/StreamRateCalls")
    for _ in range(MAX_STREAMS * 3):
        found = refusal(lambda: malformed(iter([b"\xff"])))
        assert found.reason == "MALFORMED_REQUEST"
    assert Talk(server.channel).ask() == 1


@pytest.mark.parametrize("how", ["cancel", "disconnect"])
def test_a_client_that_vanishes_frees_its_slot(
    server: Running, servicer: Servicer, how: str
) -> None:
    with connected(server.address) as channel:
        talk = Talk(channel)
        assert talk.ask() == 1
        assert servicer.hear() == 1
        if how == "cancel":
            talk.call.cancel()
        else:
            channel.close()
        assert servicer.hear() == "left"
    wait_until(lambda: len(server.streams) == 0)


def test_a_client_that_vanishes_ends_an_export(server: Running, servicer: Servicer) -> None:
    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    parts = stub.ExportRates(pb.ExportRatesRequest(tenant_id=1_000_000))
    assert next(parts).rates[0].id == 0
    assert servicer.hear() == "first"
    parts.cancel()
    servicer.go.set()
    assert servicer.hear() == "left"
    wait_until(lambda: len(server.streams) == 0)


@pytest.mark.parametrize("how", ["cancel", "disconnect", "deadline"])
def test_a_broken_deck_is_never_complete(server: Running, servicer: Servicer, how: str) -> None:
    """grpc reports some of these as a normal end of the requests: about every third."""
    for _ in range(20):
        with connected(server.address) as channel:
            method = channel.stream_unary(
                "/tollwire.v1.RatingService/ImportRates",
                pb.ImportRatesRequest.SerializeToString,
            )
            never = threading.Event()
            call = method.future(_one_then_wait(never), timeout=0.05 if how == "deadline" else None)
            if how != "deadline":
                assert servicer.hear() == "open"
            if how == "cancel":
                call.cancel()
            elif how == "disconnect":
                channel.close()
            if how != "deadline" or (seen := servicer.hear()) == "open":
                seen = servicer.hear()
            never.set()
            assert seen == "broken off"


def _one_then_wait(never: threading.Event) -> Iterator[pb.ImportRatesRequest]:
    yield pb.ImportRatesRequest(rates=[types_pb2.Rate()])
    never.wait(DEADLINE_SECONDS)


def test_a_complete_deck_is_complete(server: Running, servicer: Servicer) -> None:
    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    requests = [pb.ImportRatesRequest(rates=[types_pb2.Rate()] * 2)] * 3
    assert stub.ImportRates(iter(requests)).created == 6
    assert (servicer.hear(), servicer.hear()) == ("open", "complete")


def test_an_idle_stream_ends_when_the_server_stops(server: Running) -> None:
    talk = Talk(server.channel)
    assert talk.ask() == 1
    server.streams.stop()
    found = refusal(talk.hear)
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert found.retry_seconds == 1.0
    wait_until(lambda: len(server.streams) == 0)


def test_an_idle_import_ends_when_the_server_stops_and_rolls_back(
    server: Running, servicer: Servicer
) -> None:
    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    never = threading.Event()
    call = stub.ImportRates.future(_one_then_wait(never))
    assert servicer.hear() == "open"
    server.streams.stop()
    found = refusal(call.result)
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert servicer.hear() == "broken off"
    never.set()


def test_a_busy_stream_answers_first(server: Running, servicer: Servicer) -> None:
    talk = Talk(server.channel)
    talk.say(2)
    talk.say(1)
    assert servicer.hear() == 2
    server.streams.stop()
    servicer.go.set()
    assert talk.hear() == 2
    found = refusal(talk.hear)
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert servicer.hear() == "left"


def test_an_export_under_way_is_finished(server: Running, servicer: Servicer) -> None:
    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    parts = stub.ExportRates(pb.ExportRatesRequest(tenant_id=5))
    assert next(parts).rates[0].id == 0
    assert servicer.hear() == "first"
    server.streams.stop()
    servicer.go.set()
    assert [part.rates[0].id for part in parts] == [1, 2, 3, 4]


def test_a_stream_that_comes_late_is_refused(server: Running) -> None:
    server.streams.stop()
    found = refusal(lambda: Talk(server.channel).hear())
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


def test_the_server_does_not_read_ahead(server: Running, servicer: Servicer) -> None:
    """A sender that is faster than the handler is stopped by the transport's windows."""
    sent = 0
    message_bytes = 1 << 20

    def requests() -> Iterator[pb.StreamRateCallsRequest]:
        nonlocal sent
        padding = types_pb2.Call(call_id="x" * (message_bytes // 2))
        for _ in range(300):
            sent += 1
            yield pb.StreamRateCallsRequest(calls=[padding, padding])

    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    call = stub.StreamRateCalls(requests())
    assert servicer.hear() == 2
    last = -1
    while last != sent:
        last = sent
        time.sleep(0.3)
    assert sent < 100
    servicer.go.set()
    assert len(list(call)) == 300


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- streams that wait for their clients --------------------------------------------------------


class Flood(Servicer):
    """An export of more than a client and the transport buffer."""

    def ExportRates(
        self, request: pb.ExportRatesRequest, context: Any
    ) -> Iterator[pb.ExportRatesResponse]:
        try:
            for number in range(400):
                rate = types_pb2.Rate(id=number, destination="x" * 200_000)
                yield pb.ExportRatesResponse(rates=[rate])
        finally:
            self.seen.put("left")


@pytest.fixture
def impatient(transport: str) -> Iterator[tuple[Running, Flood]]:
    """A server whose streams wait for half a second, and its servicer."""
    servicer = Flood()
    capacity = Capacity(MAX_STREAMS + 4, MAX_STREAMS, stream_wait_seconds=0.5)
    with running(
        SERVICE, servicer, max_streams=MAX_STREAMS, capacity=capacity, transport=transport
    ) as server:
        yield server, servicer


@pytest.mark.parametrize("sends_one", [True, False])
def test_a_stream_without_requests_ends(impatient: tuple[Running, Flood], sends_one: bool) -> None:
    server, servicer = impatient
    talk = Talk(server.channel)
    if sends_one:
        assert talk.ask() == 1
    expect_idle(lambda: list(talk.call))
    while servicer.hear() != "left":
        pass
    wait_until(lambda: len(server.streams) == 0)


def test_an_import_without_requests_ends(impatient: tuple[Running, Flood]) -> None:
    server, servicer = impatient
    expect_idle(lambda: Talk(server.channel, "ImportRates"))
    assert [servicer.hear(), servicer.hear()] == ["open", "broken off"]
    wait_until(lambda: len(server.streams) == 0)


def expect_idle(ask: Callable[[], object]) -> None:
    found = refusal(ask)
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "STREAM_IDLE")
    assert found.retry_seconds == 1.0


def test_a_stream_that_is_used_does_not_end(impatient: tuple[Running, Flood]) -> None:
    server, _ = impatient
    talk = Talk(server.channel)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert talk.ask() == 1
        time.sleep(0.05)
    talk.finish()
    assert list(talk.call) == []


def test_a_stream_whose_responses_are_not_read_ends(impatient: tuple[Running, Flood]) -> None:
    server, servicer = impatient
    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    responses = stub.ExportRates(pb.ExportRatesRequest(), timeout=60)
    assert next(responses).rates[0].id == 0
    assert servicer.hear() == "left"
    wait_until(lambda: len(server.streams) == 0)
    with pytest.raises(grpc.RpcError) as raised:
        list(responses)
    assert isinstance(raised.value, grpc.Call)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "RESPONSE_NOT_READ" in (raised.value.details() or "")
    # A client that reads gets all.
    responses = stub.ExportRates(pb.ExportRatesRequest(), timeout=60)
    assert sum(1 for _ in responses) == 400
