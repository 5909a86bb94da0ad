"""grpc.health.v1: whether the server, and each of its services, serves.

A service that needs the database serves while that answers. RatingService does without it for what
counts, and so does the server as a whole ("").

Watch holds no thread: its messages are sent by a few threads of the servicer's own. grpcio brings a
servicer that does so as well, but it sends under a lock that grpc's own thread wants when a watcher
leaves. Sending waits for that thread, so the whole server stands still. Here no lock under which
something is sent is asked for when an RPC ends. A watcher that reads nothing holds up one of the
threads, until it is sent away.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

# So many watchers that read nothing may be waited for at one time.
TELLERS = 16

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"]

_Response: TypeAlias = health_pb2.HealthCheckResponse
Send = Callable[[_Response], None]


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # has no type hints
    """Nothing serves until ``serve``, and nothing after ``stop``. Thread-safe."""

    def __init__(self, services: Sequence[str], need_database: Collection[str] = ()) -> None:
        """``services``: full names; the server as a whole ("") is always one. ``need_database``:
        those of them that do not serve without it."""
        self._services = frozenset(("", *services))
        self._need_database = frozenset(need_database)
        self._serving = False
        self._database_answers = True
        self._tellers = ThreadPoolExecutor(TELLERS, thread_name_prefix="health-tell")
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
        self._serving = True
        self._tell()

    def stop(self) -> None:
        """Says so at once to who asks; watchers are told meanwhile."""
        self._serving = False
        self._tell()

    def told(self) -> None:
        """Waits until all watchers have been told, after ``stop``."""
        self._tellers.shutdown()

    def database_answers(self, answers: bool) -> None:
        """Whether the database answers by now."""
        if answers != self._database_answers:
            self._database_answers = answers
            self._tell()

    def serving(self) -> dict[str, bool]:
        """Whether each service says that it serves, by its full name; "" is the server."""
        return {name: self.status(name) == _Response.SERVING for name in sorted(self._services)}

    def status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        if service not in self._services:
            return _Response.SERVICE_UNKNOWN
        serves = self._serving and (self._database_answers or service not in self._need_database)
        return _Response.SERVING if serves else _Response.NOT_SERVING

    def _tell(self) -> None:
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            # Refused after the end: the watchers' RPCs are over as well.
            with contextlib.suppress(RuntimeError):
                self._tellers.submit(watcher.update)

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
