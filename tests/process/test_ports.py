"""Ports: ports in use are detected, and a reservation admits only sockets that share it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tollwire.service.domain.errors import CannotListen
from tollwire.service.process.ports import Reservation, probe
from tollwire.service.settings.parsing import Listen


@contextmanager
def listener(*options: int, host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        for option in options:
            server.setsockopt(socket.SOL_SOCKET, option, 1)
        server.bind((host, port))
        server.listen()
        yield server.getsockname()[1]


def test_a_free_port_is_free() -> None:
    with listener() as port:
        pass
    probe(Listen("127.0.0.1", port))
    probe(Listen("127.0.0.1", 0))
    probe(Listen("localhost", 0))
    probe(Listen("0.0.0.0", 0))


@pytest.mark.parametrize(
    "options", [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)]
)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_in_use_is_detected_even_if_it_could_be_shared(
    options: tuple[int, ...], host: str
) -> None:
    with listener(*options) as port:
        for attempt in (probe, Reservation):
            with pytest.raises(CannotListen) as refused:
                attempt(Listen(host, port))
            assert str(refused.value) == (
                f"cannot listen on {host}:{port}: the port is in use; stop the other server or"
                " use another port"
            )


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("192.0.2.1", "this machine does not have the address"),
        ("no-such-host.invalid", "the host is unknown"),
        ("x" * 70, "the host is unknown"),
    ],
)
def test_an_impossible_address(host: str, words: str) -> None:
    with pytest.raises(CannotListen, match=words):
        probe(Listen(host, 0))


def test_a_reservation_holds_the_port_for_sharing_sockets() -> None:
    with Reservation(Listen("127.0.0.1", 0)) as reservation:
        port = reservation.listen.port
        assert port > 0
        shared = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
        with listener(*shared, port=port), listener(*shared, port=port):
            # The workers get the connections; the reservation gets none.
            for _ in range(20):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(OSError), listener(port=port):
            pass
    with listener(port=port):
        pass


def test_a_reservation_of_a_name_holds_all_its_addresses() -> None:
    with Reservation(Listen("localhost", 0)) as reservation:
        again = Reservation(Listen("localhost", reservation.listen.port))
        assert again.listen == reservation.listen
        again.close()
