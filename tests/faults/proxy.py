"""A TCP proxy before PostgreSQL that can fail in the ways that networks do.

It forwards by default. A fault holds for open and for new connections:

- ``drop``: every connection ends, and new ones are refused.
- ``swallow``: connections stay open, all that either side sends is accepted, and nothing is
  forwarded. A half-open connection looks like this.
- ``cut_answer``: when a client sends a message that matches the pattern, the server gets it, and
  the connections end before the answer reaches the client. Then the proxy forwards again.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
import time
from types import TracebackType

_SLICE_SECONDS = 0.02
_BUFFER_BYTES = 256 * 1024


class Proxy:
    """Listens on a free port of 127.0.0.1; ``target`` is a Unix socket."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._style = "pass"
        self._pattern: re.Pattern[bytes] | None = None
        self._skip = 0
        self.cuts = 0
        # What clients have sent at once. A round trip is one of them if it is small.
        self.requests = 0
        self._closing = False
        self._pairs: list[_Pair] = []
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def restore(self) -> None:
        """Forward again. Swallowed bytes are lost, so those connections end."""
        before, self._style = self._style, "pass"
        if before == "swallow":
            self._end_all()

    def drop(self) -> None:
        self._style = "drop"
        self._end_all()

    def swallow(self) -> None:
        self._style = "swallow"

    def swallow_open(self) -> None:
        """``swallow`` for the connections that are open now."""
        for pair in list(self._pairs):
            pair.is_silent = True

    def cut_answer(self, pattern: bytes, skip: int = 0) -> None:
        """``skip``: the number of matching messages that pass first."""
        self._skip = skip
        self._pattern = re.compile(pattern)

    def _end_all(self) -> None:
        for pair in list(self._pairs):
            pair.condemned = True

    def _run(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._listener, selectors.EVENT_READ)
            while not self._closing:
                for key, _ in ready.select(_SLICE_SECONDS):
                    if key.data is None:
                        self._accept(ready)
                    else:
                        self._forward(*key.data)
                for pair in [one for one in self._pairs if one.condemned]:
                    self._pairs.remove(pair)
                    pair.close(ready)
            for pair in self._pairs:
                pair.close(ready)

    def _accept(self, ready: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX)
        try:
            if self._style == "drop":
                raise ConnectionRefusedError
            server.connect(self._target)
        except OSError:
            client.close()
            server.close()
            return
        pair = _Pair(client, server)
        self._pairs.append(pair)
        ready.register(client, selectors.EVENT_READ, (pair, client, server))
        ready.register(server, selectors.EVENT_READ, (pair, server, client))

    def _forward(self, pair: _Pair, source: socket.socket, sink: socket.socket) -> None:
        if pair.condemned:
            return
        try:
            data = source.recv(_BUFFER_BYTES)
            if self._style == "swallow" or pair.is_silent:
                if not data:
                    pair.condemned = source is pair.client
                    time.sleep(_SLICE_SECONDS)
                return
            if not data:
                pair.condemned = True
                return
            self.requests += source is pair.client
            sink.sendall(data)
        except OSError:
            pair.condemned = True
            return
        if self._pattern is not None and source is pair.client and self._pattern.search(data):
            self._skip -= 1
            if self._skip >= 0:
                return
            self._pattern = None
            # The server's answer shows that it has executed the request.
            with contextlib.suppress(OSError):
                pair.server.recv(_BUFFER_BYTES)
            self.cuts += 1
            self._end_all()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Pair:
    """A client's connection, and the connection to the server for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.condemned = False
        self.is_silent = False

    def close(self, ready: selectors.BaseSelector) -> None:
        for end in (self.client, self.server):
            ready.unregister(end)
            end.close()
