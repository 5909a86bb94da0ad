"""The private and experimental parts of grpcio that the server uses still work as they must.

A failure here means that a new grpcio has changed one of them: see
service/rpc/transports/grpcio_internals.py.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.hostile import frames
from tests.rpc.running import DEADLINE_SECONDS, connected
from tollwire.service.rpc.transports import grpcio_internals

ROOT = Path(__file__).resolve().parents[2]
METHOD = "/canary.Canary/Call"


class RecordedPool(ThreadPoolExecutor):
    """A pool that records the thread of each ``submit``."""

    def __init__(self) -> None:
        super().__init__(4, thread_name_prefix="canary")
        self.submitted_in: list[int] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted_in.append(threading.get_ident())
        return super().submit(fn, *args, **kwargs)


class RecordedInterceptor(grpc.ServerInterceptor):
    def __init__(self) -> None:
        self.called_in: list[int] = []

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.called_in.append(threading.get_ident())
        return continuation(handler_call_details)


@contextmanager
def served(
    handler: Any, interceptors: list[grpc.ServerInterceptor] | None = None
) -> Iterator[grpc.Channel]:
    own = ThreadPoolExecutor(4, thread_name_prefix="own")
    server = grpc.server(own, interceptors=interceptors or [], options=[("grpc.so_reuseport", 0)])
    grpcio_internals.register(server, "canary.Canary", {"Call": handler})
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with connected(address) as channel:
            yield channel
    finally:
        server.stop(0).wait(DEADLINE_SECONDS)
        own.shutdown()


def test_a_handler_runs_in_its_own_pool() -> None:
    def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        next(requests)
        return threading.current_thread().name.encode()

    pool = RecordedPool()
    interceptor = RecordedInterceptor()
    grpcio_internals.run_in_pool(handle, pool)
    with served(grpc.stream_unary_rpc_method_handler(handle), [interceptor]) as channel:
        name = channel.unary_unary(METHOD)(b"", timeout=DEADLINE_SECONDS)
    assert name.startswith(b"canary"), (
        "grpcio no longer runs a handler in its experimental_thread_pool: the kinds of RPCs would"
        " share one pool"
    )
    assert interceptor.called_in == pool.submitted_in, (
        "grpcio no longer calls the interceptors and submit of the pool in one thread: a caller's"
        " share of the slots would not be limited"
    )
    pool.shutdown()


def test_a_handler_is_called_before_the_request_is_read() -> None:
    called, release = threading.Event(), threading.Event()

    def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        called.set()
        return next(requests)

    def silent() -> Iterator[bytes]:
        release.wait(DEADLINE_SECONDS)
        yield b"late"

    with served(grpc.stream_unary_rpc_method_handler(handle)) as channel:
        call = channel.stream_unary(METHOD).future(silent(), timeout=2 * DEADLINE_SECONDS)
        is_called = called.wait(DEADLINE_SECONDS)
        release.set()
        assert call.result() == b"late"
    assert is_called, (
        "grpcio reads a request before it calls a handler of a stream of requests: a refused RPC"
        " would be read first"
    )


def test_another_thread_may_send_the_responses_and_end_the_rpc() -> None:
    @grpcio_internals.sends_responses
    def handle(requests: Iterator[bytes], context: grpc.ServicerContext, send: Any) -> None:
        def work() -> None:
            send(b"1")
            context.set_code(grpc.StatusCode.UNAVAILABLE)
            send(None)

        threading.Thread(target=work).start()

    with served(grpc.stream_stream_rpc_method_handler(handle)) as channel:
        received, code = [], None
        call = channel.stream_stream(METHOD)(iter([b""]), timeout=DEADLINE_SECONDS)
        try:
            received += list(call)
        except grpc.RpcError as error:
            code = error.code()
            received += [b"1"]
    assert (received, code) == ([b"1"], grpc.StatusCode.UNAVAILABLE), (
        "grpcio no longer lets a handler with experimental_non_blocking send its responses and end"
        " its RPC from another thread: streams could not end when the server stops"
    )


def test_another_thread_may_end_an_rpc_with_its_response() -> None:
    @grpcio_internals.sends_responses
    def handle(requests: Iterator[bytes], context: grpc.ServicerContext, send: Any) -> None:
        def work() -> None:
            context.set_trailing_metadata((("key", "value"),))
            grpcio_internals.end_with_response(context, request + b" answered")

        request = next(requests)
        threading.Thread(target=work).start()

    with served(grpc.stream_stream_rpc_method_handler(handle)) as channel:
        try:
            response, call = channel.unary_unary(METHOD).with_call(b"1", timeout=DEADLINE_SECONDS)
            received = response, tuple(call.trailing_metadata())
        except grpc.RpcError as error:
            received = error, ()
    assert received == (b"1 answered", (("key", "value"),)), (
        "grpcio no longer lets another thread end an RPC with its response: CreateCdr would not"
        " answer"
    )


def test_no_other_module_uses_these_parts() -> None:
    private = re.compile(
        r"experimental_|dynamic_ssl|add_registered_method|_replace\(trailing|grpc\._|_rpc_event"
    )
    users = {
        path.name
        for path in (ROOT / "service").rglob("*.py")
        if private.search(path.read_text("utf-8"))
    }
    assert users == {"grpcio_internals.py"}


def test_grpcio_is_bounded_to_tested_releases() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    bounds = [one for one in project["dependencies"] if one.startswith("grpcio")]
    assert bounds and all("<1.86" in one for one in bounds), bounds


def test_a_message_is_awaited_without_a_thread() -> None:
    threads: list[int] = []
    started, release = threading.Event(), threading.Event()

    @grpcio_internals.sends_responses
    def handle(requests: Iterator[bytes], context: grpc.ServicerContext, send: Any) -> None:
        def arrived(message: bytes | None) -> None:
            threads.append(threading.get_ident())
            grpcio_internals.end_with_response(context, b"none" if message is None else message)

        threads.append(threading.get_ident())
        assert grpcio_internals.read_message(context, arrived)
        started.set()

    def late(messages: list[bytes]) -> Iterator[bytes]:
        assert release.wait(DEADLINE_SECONDS)
        yield from messages

    grpcio_internals.run_in_grpc_thread(handle)
    with served(grpc.stream_stream_rpc_method_handler(handle)) as channel:
        ask = channel.stream_unary(METHOD)
        call = ask.future(late([b"late"]), timeout=2 * DEADLINE_SECONDS)
        is_started = started.wait(DEADLINE_SECONDS)
        release.set()
        responses = [call.result(), ask(late([]), timeout=DEADLINE_SECONDS)]
    assert (is_started, responses) == (True, [b"late", b"none"]), (
        "grpcio no longer gives a message to a function: an RPC would need a thread while its"
        " message is awaited"
    )
    assert len(set(threads)) == 1, "grpcio handles the events of RPCs in several threads"


def test_metadata_that_is_not_utf_8_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    answered = threading.Event()

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(str(dict(context.invocation_metadata())["x-name"]))
        answered.set()
        return b""

    def send(channel_address: str) -> None:
        host, _, port = channel_address.rpartition(":")
        with socket.create_connection((host, int(port)), DEADLINE_SECONDS) as line:
            line.sendall(frames.opening())
            fields = frames.request_headers(("x-name", b"\xff"), path=METHOD)
            line.sendall(frames.headers(1, fields) + frames.data_frames(1, frames.message(b"")))
            assert answered.wait(DEADLINE_SECONDS)

    decoder = logging.getLogger(grpcio_internals._DECODER)
    decoder.setLevel(logging.NOTSET)
    own = ThreadPoolExecutor(4)
    server = grpc.server(own, options=[("grpc.so_reuseport", 0)])
    handler = grpc.unary_unary_rpc_method_handler(handle)
    grpcio_internals.register(server, "canary.Canary", {"Call": handler})
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    send(address)
    assert {one.name for one in caplog.records} == {decoder.name}, (
        "grpcio logs values that are not UTF-8 to another logger, which is not silent"
    )
    caplog.clear()
    answered.clear()
    grpcio_internals.silence_decoder()
    send(address)
    assert seen == ["\xff"] * 2
    assert caplog.records == []
    server.stop(0).wait(DEADLINE_SECONDS)
    own.shutdown()


def test_an_rpc_can_be_broken_off_before_responses_that_are_not_read() -> None:
    waits = threading.Event()

    @grpcio_internals.sends_responses
    def handle(requests: Iterator[bytes], context: grpc.ServicerContext, send: Any) -> None:
        def break_off() -> None:
            waits.wait(DEADLINE_SECONDS)
            grpcio_internals.break_off(context, grpc.StatusCode.ABORTED.value[0], "not read")

        threading.Thread(target=break_off).start()
        while context.is_active():
            send(bytes(1_000_000))

    with served(grpc.stream_stream_rpc_method_handler(handle)) as channel:
        responses = channel.stream_stream("/canary.Canary/Call")(iter([]), timeout=DEADLINE_SECONDS)
        next(responses)
        waits.set()
        with pytest.raises(grpc.RpcError) as raised:
            list(responses)
    assert isinstance(raised.value, grpc.Call)
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.ABORTED, "not read")
