"""The metrics port: a small HTTP server whose clients cannot disturb the service.

It answers GET and HEAD of /metrics, closes the connection after each response, and has one thread.
The time, the size and the number of connections are limited; above the limit the oldest connection
is closed. Another thread writes one page at a time. Requests at the same time or shortly after get
the same page. Requests are not logged.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
from collections.abc import Callable
from typing import Protocol

MAX_CONNECTIONS = 64
MAX_HEAD_BYTES = 8 * 1024
# The time that a client has to send the complete request, and to read the response.
HEAD_SECONDS = 5.0
ANSWER_SECONDS = 10.0
_CLOSE_SECONDS = 5.0

# A page is written again at this age: writing takes processor time from calls.
FRESH_SECONDS = 0.2

# Returns the page and its content type, in the format of OpenMetrics if the argument is True.
Page = Callable[[bool], tuple[bytes, str]]

_REQUEST = re.compile(rb"([A-Z]{1,16}) (\S{1,2048}) HTTP/1\.[01]\r?\n")
_OPENMETRICS = re.compile(rb"^accept:.*application/openmetrics-text", re.IGNORECASE | re.MULTILINE)
_PLAIN = "text/plain; charset=utf-8"

_LOG = logging.getLogger("tollwire.metrics")


class Address(Protocol):
    """The address to listen on (service/settings/parsing.py: Listen)."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class MetricsServer:
    """Answers on the port from ``start`` until ``close``."""

    def __init__(self, address: Address, page: Page) -> None:
        """Bind the port. OSError if that fails."""
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self._socket = socket.socket(family, kind, protocol)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(where)
            self._socket.listen(MAX_CONNECTIONS)
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self._page = page
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        # The open connections, in the order of their arrival.
        self._open: dict[asyncio.Task[None], None] = {}
        self._written: dict[bool, tuple[float, asyncio.Future[tuple[bytes, str]]]] = {}

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if not self._thread.is_alive():
            self._socket.close()
            self._loop.close()
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(
            self._connected, sock=self._socket, limit=MAX_HEAD_BYTES, backlog=MAX_CONNECTIONS
        )
        async with server:
            await self._stop.wait()
            for task in list(self._open):
                task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= MAX_CONNECTIONS:
            # A response takes a moment, so the oldest connection is a slow one.
            next(iter(self._open)).cancel()
        self._open[task] = None
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client has disconnected, or was too slow
        finally:
            self._open.pop(task, None)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\n\r\n")
        except asyncio.LimitOverrunError:
            await _answer(writer, "431 Request Header Fields Too Large")
            return
        except asyncio.IncompleteReadError as cut:
            if cut.partial:
                await _answer(writer, "400 Bad Request")
            return
        request = _REQUEST.match(head)
        if request is None:
            await _answer(writer, "400 Bad Request")
        elif request[1] not in (b"GET", b"HEAD"):
            await _answer(writer, "405 Method Not Allowed", allow=True)
        elif request[2].partition(b"?")[0] != b"/metrics":
            await _answer(writer, "404 Not Found", b"the metrics are at /metrics\n")
        else:
            try:
                page, content_type = await self._latest(_OPENMETRICS.search(head) is not None)
            except Exception:
                _LOG.exception("the metrics page cannot be written")
                await _answer(writer, "500 Internal Server Error")
                return
            body = page if request[1] == b"GET" else b""
            await _answer(writer, "200 OK", body, content_type, size=len(page))

    async def _latest(self, as_openmetrics: bool) -> tuple[bytes, str]:
        """The page that is being written or is recent, else a new one."""
        now = self._loop.time()
        began, page = self._written.get(as_openmetrics, (-FRESH_SECONDS, None))
        if page is None or (page.done() and now - began >= FRESH_SECONDS):
            page = asyncio.ensure_future(asyncio.to_thread(self._page, as_openmetrics))
            self._written[as_openmetrics] = (now, page)
        # The end of one connection does not cancel the page for the others.
        return await asyncio.shield(page)


async def _answer(
    writer: asyncio.StreamWriter,
    status: str,
    body: bytes | None = None,
    content_type: str = _PLAIN,
    *,
    size: int | None = None,
    allow: bool = False,
) -> None:
    body = status.encode() + b"\n" if body is None else body
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body) if size is None else size}",
        "Connection: close",
        *(["Allow: GET, HEAD"] if allow else []),
    ]
    async with asyncio.timeout(ANSWER_SECONDS):
        writer.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
        # Waits until the client has received all of it.
        writer.close()
        await writer.wait_closed()
