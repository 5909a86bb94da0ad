"""Ports: probed before grpc binds them, and reserved while workers start and end.

Workers share a port with SO_REUSEPORT. With this option the kernel also shares it with any other
program of the same user, so the port is probed without it first.
"""

from __future__ import annotations

import errno
import os
import socket
from types import TracebackType
from typing import Any

from tollwire.service.domain.errors import CannotListen
from tollwire.service.settings.parsing import Listen

_ADVICE = {
    errno.EADDRINUSE: "the port is in use; stop the other server or use another port",
    errno.EACCES: "ports below 1024 need privileges; use a higher port",
    errno.EADDRNOTAVAIL: "this machine does not have the address",
}


def probe(listen: Listen) -> None:
    """CannotListen if this machine does not have the address, or the port is in use."""
    for family, address in _resolve(listen):
        with _socket(family, listen) as candidate:
            _bind(candidate, address, listen)


class Reservation:
    """Reserves a port without listening on it. Workers bind it with SO_REUSEPORT and listen."""

    def __init__(self, listen: Listen) -> None:
        """``listen.port`` 0 picks a free port; ``self.listen`` has its number."""
        probe(listen)
        self.listen = listen
        self._sockets: list[socket.socket] = []
        try:
            for family, address in _resolve(listen):
                held = _socket(family, listen)
                self._sockets.append(held)
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                _bind(held, (address[0], self.listen.port, *address[2:]), listen)
                self.listen = Listen(listen.host, held.getsockname()[1])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for held in self._sockets:
            held.close()

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _resolve(listen: Listen) -> list[tuple[socket.AddressFamily, Any]]:
    try:
        found = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise CannotListen(
            f"cannot listen on {listen}: the host is unknown; name an address of this machine"
        ) from error
    return [(family, address) for family, _, _, _, address in found]


def _socket(family: socket.AddressFamily, listen: Listen) -> socket.socket:
    try:
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _cannot_listen(listen, error) from error
    # Otherwise connections of a server that has just stopped would count as in use.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        # As grpc does: "::" includes IPv4.
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return made


def _bind(free: socket.socket, address: Any, listen: Listen) -> None:
    try:
        free.bind(address)
    except OSError as error:
        raise _cannot_listen(listen, error) from error


def _cannot_listen(listen: Listen, error: OSError) -> CannotListen:
    number = error.errno or 0
    return CannotListen(f"cannot listen on {listen}: {_ADVICE.get(number) or os.strerror(number)}")
