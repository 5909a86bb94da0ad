"""The limit of connections, and their duration: options of grpc's transport.

A connection above the limit is closed at once; its client gets UNAVAILABLE and retries, on another
server if it has one. A connection that sends nothing valid, or that is idle, is closed too. gRPC
clients open a new one when they need it, and lose nothing.
"""

from __future__ import annotations

# For the handshakes of TLS and HTTP/2. grpc's default is two minutes, and a silent connection
# counts against the limit.
HANDSHAKE_SECONDS = 20
# Without any RPC.
IDLE_SECONDS = 30 * 60
# After the server has told a client to open a new connection. Streams that are still open then end
# with UNAVAILABLE; an upload resumes at its last committed record.
AGE_GRACE_SECONDS = 60 * 60


def connection_options(max_connections: int, max_age_seconds: float) -> tuple[tuple[str, int], ...]:
    """``max_age_seconds`` 0: no limit."""
    options = [
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
        ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
    ]
    if max_age_seconds:
        # grpc varies it by a tenth, so that not all clients reconnect at one time.
        options += [
            ("grpc.max_connection_age_ms", max(1, round(max_age_seconds * 1000))),
            ("grpc.max_connection_age_grace_ms", round(AGE_GRACE_SECONDS * 1000)),
        ]
    return tuple(options)
