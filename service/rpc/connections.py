"""The limits on the number and the age of connections: options of grpc's transport.

The server closes a connection above the limit at once; its client gets UNAVAILABLE and retries, on
another server if it has one. The server also closes connections that send nothing valid or are
idle. gRPC clients open a new connection when they need one, and lose no request.
"""

from __future__ import annotations

# The time for the handshakes of TLS and HTTP/2. grpc's default is two minutes, and a silent
# connection counts against the limit.
HANDSHAKE_SECONDS = 20
# A connection without any RPC for this time is closed.
IDLE_SECONDS = 30 * 60
# When a connection reaches its maximum age, the server sends GOAWAY; streams that are still open
# after this time end with UNAVAILABLE. An upload resumes at its last committed record.
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
