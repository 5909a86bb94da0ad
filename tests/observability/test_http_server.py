"""The metrics port, with any kind of client."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tollwire.service.observability.metrics import http_server as module
from tollwire.service.observability.metrics.http_server import (
    MAX_CONNECTIONS,
    MAX_HEAD_BYTES,
    MetricsServer,
)
from tollwire.service.settings.parsing import Listen

SECONDS = 20


class Pages:
    """The page of the port; written ``written`` times."""

    def __init__(self) -> None:
        self.body = b"tollwire_build_info 1\n"
        self.written = 0
        self.error: Exception | None = None
        self.may_be_written = threading.Event()
        self.may_be_written.set()

    def page(self, as_openmetrics: bool) -> tuple[bytes, str]:
        self.written += 1
        assert self.may_be_written.wait(SECONDS)
        if self.error is not None:
            raise self.error
        return self.body, "openmetrics" if as_openmetrics else "text"


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
def port(pages: Pages) -> Iterator[int]:
    running = MetricsServer(Listen("127.0.0.1", 0), pages.page)
    running.start()
    yield running.port
    running.close()


def ask(
    port: int, path: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def heard(connection: socket.socket) -> bytes:
    """All bytes until the other side closes the connection, in any way."""
    parts = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_the_page_has_the_requested_format(port: int, pages: Pages) -> None:
    response, body = ask(port)
    assert (response.status, body) == (200, pages.body)
    assert response.headers["Content-Type"] == "text"
    assert response.headers["Connection"] == "close"
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    assert ask(port, Accept=accept)[0].headers["Content-Type"] == "openmetrics"
    assert ask(port, "/metrics?name=x")[1] == pages.body
    head, nothing = ask(port, method="HEAD")
    assert (head.status, nothing) == (200, b"")
    assert head.headers["Content-Length"] == str(len(pages.body))


def test_unknown_paths(port: int, pages: Pages) -> None:
    assert ask(port, "/")[0].status == 404
    assert ask(port, "/metrics/447911123456")[0].status == 404
    refused, _ = ask(port, method="POST")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
    assert pages.written == 0


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /metrics\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET  HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
        (b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03\r\n\r\n", b"HTTP/1.1 400 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /" + b"x" * 4000 + b" HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 2 * MAX_HEAD_BYTES, b"HTTP/1.1 431 "),
        (b"\0" * 2 * MAX_HEAD_BYTES, b"HTTP/1.1 431 "),
        (b"GET /metrics HTTP/1.1\r\nAccept: \xff\xfe\r\n\r\n", b"HTTP/1.1 200 "),
    ],
)
def test_garbage_is_answered_and_closed(port: int, sent: bytes, answer: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(sent)
        assert heard(connection).startswith(answer)
    assert ask(port)[0].status == 200


def test_half_a_request(port: int) -> None:
    for sent, answer in ((b"GET /met", b"HTTP/1.1 400 "), (b"", b"")):
        with connected(port) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert heard(connection)[: len(answer) or None] == answer


def test_a_silent_client_is_disconnected(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.05)
    with connected(port) as silent, connected(port) as slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert heard(silent) == heard(slow) == b""


def test_a_client_that_does_not_read_is_disconnected(
    port: int, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.05)
    pages.body = bytes(50_000_000)
    with connected(port) as greedy:
        greedy.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert ask(port, "/")[0].status == 404
        # The operating system's buffers arrive, and no more.
        threading.Event().wait(0.2)
        assert len(heard(greedy)) < len(pages.body)


def test_many_connections_do_not_block_a_scrape(port: int, pages: Pages) -> None:
    threads = threading.active_count()
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(port)) for _ in range(3 * MAX_CONNECTIONS)]
        assert ask(port)[1] == pages.body
        assert heard(idle[0]) == b""
        # One thread writes pages, and connections use none.
        assert threading.active_count() <= threads + 1


def test_concurrent_scrapes_share_one_page(port: int, pages: Pages) -> None:
    pages.may_be_written.clear()
    answers: list[bytes] = []
    asking = [
        threading.Thread(target=lambda: answers.append(ask(port)[1]), daemon=True) for _ in range(8)
    ]
    for thread in asking:
        thread.start()
    while pages.written == 0:
        threading.Event().wait(0.01)
    # A client that leaves does not end it for the others.
    with connected(port) as leaving:
        leaving.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    pages.may_be_written.set()
    for thread in asking:
        thread.join(SECONDS)
    assert answers == [pages.body] * 8
    assert pages.written < 8


def test_a_page_that_cannot_be_written(
    port: int, pages: Pages, caplog: pytest.LogCaptureFixture
) -> None:
    pages.error = ValueError("no page")
    assert ask(port)[0].status == 500
    assert [(line.levelno, line.name) for line in caplog.records] == [
        (logging.ERROR, "tollwire.metrics")
    ]
    pages.error = None
    threading.Event().wait(2 * module.FRESH_SECONDS)
    assert ask(port)[0].status == 200


def test_a_port_in_use(port: int, pages: Pages) -> None:
    with pytest.raises(OSError, match="in use"):
        MetricsServer(Listen("127.0.0.1", port), pages.page)
    never_started = MetricsServer(Listen("127.0.0.1", 0), pages.page)
    never_started.close()
