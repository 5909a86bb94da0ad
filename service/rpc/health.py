"""grpc.health.v1: whether the server, and each of its services, serves.

Watch holds no thread: its messages are sent by whatever thread changes the status. grpcio brings a
servicer that does so as well, but it sends under a lock that grpc's own thread wants when a watcher
leaves. Sending waits for that thread, so the whole server stands still. Here no lock under which
something is sent is asked for when an RPC ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"]

_Response: TypeAlias = health_pb2.HealthCheckResponse
Send = Callable[[_Response], None]


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # has no type hints
    """Nothing serves until ``serve``, and nothing after ``stop``. Thread-safe."""

    def __init__(self, services: Sequence[str]) -> None:
        """``services``: full names; the server as a whole ("") is always one."""
        self._services = frozenset(("", *services))
        self._serving = False
        self._lock = threading.Lock()
        self._watchers: set[_Watcher] = set()

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details("there is no service of that name")
        return _Response(status=self.status(request.service))

    def List(
        self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthListResponse:
        return health_pb2.HealthListResponse(
            statuses={name: _Response(status=self.status(name)) for name in self._services}
        )

    def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext, send: Send
    ) -> None:
        """Sends the present status, and each change of it for as long as the client listens."""
        watcher = _Watcher(self, request.service, send)
        with self._lock:
            self._watchers.add(watcher)
        if not context.add_callback(lambda: self._forget(watcher)):
            self._forget(watcher)
        watcher.update()

    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]

    def serve(self) -> None:
        self._change(serving=True)

    def stop(self) -> None:
        self._change(serving=False)

    def serving(self) -> dict[str, bool]:
        """Whether each service says that it serves, by its full name; "" is the server."""
        return {name: self.status(name) == _Response.SERVING for name in sorted(self._services)}

    def status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        if service not in self._services:
            return _Response.SERVICE_UNKNOWN
        return _Response.SERVING if self._serving else _Response.NOT_SERVING

    def _change(self, *, serving: bool) -> None:
        with self._lock:
            self._serving = serving
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.update()

    def _forget(self, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.discard(watcher)


class _Watcher:
    """One client that watches one service."""

    def __init__(self, health: HealthServicer, service: str, send: Send) -> None:
        self._health = health
        self._service = service
        self._send = send
        self._sent: int | None = None
        # Orders what several threads send to this client. Nobody else asks for it.
        self._turn = threading.Lock()

    def update(self) -> None:
        """Tells the client of the present status, unless it knows."""
        with self._turn:
            status = self._health.status(self._service)
            if status != self._sent:
                self._sent = status
                self._send(_Response(status=status))
