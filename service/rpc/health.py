"""grpc.health.v1: the health of the server and of each service.

A service that needs the database is SERVING while the database answers. RatingService rates from
memory, so it is SERVING without the database, and so is the server as a whole ("").

Watch occupies no thread of its own: a few threads of the servicer send the messages of all
watchers. grpcio's servicer does the same, but sends under a lock that grpc's own thread acquires
when a watcher disconnects. Sending waits for that thread, so the whole server would deadlock. Here
the end of an RPC never acquires a lock under which something is sent. A watcher that does not read
blocks one of the threads until its RPC is cancelled.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tollwire.service.rpc.call import StreamCall
from tollwire.service.rpc.endpoints import sends_responses
from tollwire.service.rpc.status import Failure, Refused, StatusCode

# A watcher that does not read blocks one of these threads.
NOTIFIER_THREADS = 16

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"]

_Response: TypeAlias = health_pb2.HealthCheckResponse
Send = Callable[[_Response], None]


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # has no type hints
    """All services are NOT_SERVING before ``serve`` and after ``stop``. Thread-safe."""

    def __init__(self, services: Sequence[str], need_database: Collection[str] = ()) -> None:
        """``services``: full names; the server as a whole ("") is added. ``need_database``: the
        services that are NOT_SERVING without the database."""
        self._services = frozenset(("", *services))
        self._need_database = frozenset(need_database)
        self._serving = False
        self._database_answers = True
        self._notifiers = ThreadPoolExecutor(NOTIFIER_THREADS, thread_name_prefix="health-notify")
        self._lock = threading.Lock()
        self._watchers: set[_Watcher] = set()

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            raise Refused(Failure(StatusCode.NOT_FOUND, "no service has this name"))
        return _Response(status=self.status(request.service))

    def List(
        self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthListResponse:
        return health_pb2.HealthListResponse(
            statuses={name: _Response(status=self.status(name)) for name in self._services}
        )

    @sends_responses
    def Watch(
        self, request: health_pb2.HealthCheckRequest, context: StreamCall, send: Send
    ) -> None:
        """Send the current status, and each change until the client cancels."""
        watcher = _Watcher(self, request.service, send)
        with self._lock:
            self._watchers.add(watcher)
        if not context.on_end(lambda: self._remove(watcher)):
            self._remove(watcher)
        watcher.update()

    def serve(self) -> None:
        self._serving = True
        self._notify()

    def stop(self) -> None:
        """Checks report this at once; watchers are notified in the background."""
        self._serving = False
        self._notify()

    def wait_until_notified(self) -> None:
        """After ``stop``: wait until all watchers are notified."""
        self._notifiers.shutdown()

    def database_answers(self, answers: bool) -> None:
        """Update the health of the services that need the database."""
        if answers != self._database_answers:
            self._database_answers = answers
            self._notify()

    def serving(self) -> dict[str, bool]:
        """Whether each service is SERVING, by its full name; "" is the server."""
        return {name: self.status(name) == _Response.SERVING for name in sorted(self._services)}

    def status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        if service not in self._services:
            return _Response.SERVICE_UNKNOWN
        serves = self._serving and (self._database_answers or service not in self._need_database)
        return _Response.SERVING if serves else _Response.NOT_SERVING

    def _notify(self) -> None:
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            # Raised after the executor was shut down; then the RPCs of the watchers have ended.
            with contextlib.suppress(RuntimeError):
                self._notifiers.submit(watcher.update)

    def _remove(self, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.discard(watcher)


class _Watcher:
    """One client that watches one service."""

    def __init__(self, health: HealthServicer, service: str, send: Send) -> None:
        self._health = health
        self._service = service
        self._send = send
        self._sent: int | None = None
        # Orders what several threads send to this client. No other code acquires it.
        self._sending = threading.Lock()

    def update(self) -> None:
        """Send the current status, unless it was sent already."""
        with self._sending:
            status = self._health.status(self._service)
            if status != self._sent:
                self._sent = status
                self._send(_Response(status=status))
