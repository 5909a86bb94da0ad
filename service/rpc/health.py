"""grpc.health.v1: whether the server, and each of its services, serves.

Watch holds no thread: grpcio's servicer answers it from whatever thread changes a status.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"]


class HealthServicer(health.HealthServicer):  # type: ignore[misc]  # has no type hints
    """Nothing serves until ``serve``; from ``stop`` on nothing serves, for good."""

    def __init__(self, services: Sequence[str]) -> None:
        """``services``: full names; the server as a whole ("") is always one."""
        super().__init__(experimental_non_blocking=True)
        self._services = ("", *services)
        self._set_all(health_pb2.HealthCheckResponse.NOT_SERVING)

    def List(
        self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthListResponse:
        """Which grpcio's servicer leaves out."""
        answer = health_pb2.HealthListResponse()
        for name in self._services:
            status = self.Check(health_pb2.HealthCheckRequest(service=name), context).status
            answer.statuses[name].status = status
        return answer

    def serve(self) -> None:
        self._set_all(health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        self.enter_graceful_shutdown()

    def _set_all(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in self._services:
            self.set(name, status)
