"""How many connections a server takes, and how long one may live: the transport's own options.

A connection beyond the limit is closed as soon as it is there; its client sees UNAVAILABLE and
tries again, elsewhere where it can. One that has said nothing of use, or that nobody uses, gives
its place up. Clients of gRPC open another when they need one, and lose nothing.
"""

from __future__ import annotations

# For TLS and the first words of HTTP/2. grpc's own limit is two minutes, and a connection that says
# nothing takes the place of one that would.
HANDSHAKE_SECONDS = 20
# Without any RPC.
IDLE_SECONDS = 30 * 60
# From when a client was asked to open another connection: streams that have not ended by then are
# cut off, with UNAVAILABLE. An upload goes on from where it stood.
AGE_GRACE_SECONDS = 60 * 60


def connection_options(max_connections: int, max_age_seconds: float) -> tuple[tuple[str, int], ...]:
    """``max_age_seconds`` 0: for ever."""
    options = [
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
        ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
    ]
    if max_age_seconds:
        # grpc itself spreads it by a tenth, so that not all come back at one time.
        options += [
            ("grpc.max_connection_age_ms", max(1, round(max_age_seconds * 1000))),
            ("grpc.max_connection_age_grace_ms", round(AGE_GRACE_SECONDS * 1000)),
        ]
    return tuple(options)
