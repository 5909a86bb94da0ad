"""A connection between a client and the server with the faults of clients: a TCP proxy.

- ``trickle``: one byte a second reaches the server.
- ``deaf``: bytes from the server are no longer read, until its buffers are full.
- ``gone``: nothing gets through either way, and neither side gets an end: no FIN, no RST.

Connections stay open until ``close``.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

FAULTS = ("deaf", "trickle", "gone")

_BUFFER_BYTES = 64 * 1024
_SLICE_SECONDS = 0.1


class BadLine:
    """Forwards from a free port of 127.0.0.1, and from ``spoil`` on as badly as it says."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_SLICE_SECONDS)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._fault = ""
        self._closing = False
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def spoil(self, fault: str) -> None:
        assert fault in FAULTS
        self._fault = fault

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for one in (client, server):
                    one.settimeout(_SLICE_SECONDS)
                self._sockets += (client, server)
                self._start(self._pump, client, server, "gone", "trickle")
                self._start(self._pump, server, client, "gone", "deaf")

    def _pump(self, source: socket.socket, sink: socket.socket, *faults: str) -> None:
        """``faults``: those that this direction has."""
        data = b""
        with contextlib.suppress(OSError):
            while not self._closing:
                fault = self._fault if self._fault in faults else ""
                if fault in ("gone", "deaf"):
                    time.sleep(_SLICE_SECONDS)
                    continue
                with contextlib.suppress(TimeoutError):
                    if not data:
                        data = source.recv(_BUFFER_BYTES)
                        if not data:
                            return
                        continue  # the line may have been spoiled meanwhile
                    data = data[sink.send(data[:1] if fault == "trickle" else data) :]
                    if fault == "trickle":
                        time.sleep(1)

    def close(self) -> None:
        self._closing = True
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()
