"""TLS on the wire: accepted and refused clients, by certificate, by protocol version, and while the
files change.

Beside each refusal here is an accepted client that differs only in that respect.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.rpc.authority import DAY, NOW, Authority, Issued, files_of, shown_by
from tests.rpc.running import DEADLINE_SECONDS
from tollwire.service.process.composition import Application, build_application
from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.pipeline import RpcPipeline
from tollwire.service.rpc.server import RpcServer
from tollwire.service.rpc.tls import ServerTls
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen

AUTHORITY, STRANGER = Authority(), Authority()
PAIR = AUTHORITY.issue("localhost", "tollwire.example")
CLIENT = AUTHORITY.issue("switch-1.example")

HANDSHAKE = 22  # of TLS's records of its messages
SERVER_HELLO = 2  # of its messages


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    path = tmp_path_factory.mktemp("tls") / "tollwire.db"
    with build_application(Settings(database=f"sqlite:///{path}")) as found:
        yield found


@contextmanager
def serving(
    everything: Application, folder: Path, *, mutual: bool = False, now: datetime = NOW
) -> Iterator[tuple[str, ServerTls]]:
    """A server with the folder's files, and its certificates; only the tests check the files
    again."""
    tls = ServerTls(files_of(folder, mutual=mutual), now=lambda: now)
    with plain(everything, tls.credentials) as address:
        yield address, tls


@contextmanager
def plain(
    everything: Application, credentials: grpc.ServerCredentials | None = None
) -> Iterator[str]:
    server = RpcServer(
        everything.subjects, capacity=Capacity(max_streams=2), pipeline=RpcPipeline()
    )
    listen = server.bind(Listen("127.0.0.1", 0), credentials)
    server.start()
    try:
        yield f"localhost:{listen.port}"
    finally:
        assert server.stop(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    PAIR.write(tmp_path)
    AUTHORITY.write(tmp_path)
    return tmp_path


@contextmanager
def client(
    address: str,
    *,
    authority: Authority = AUTHORITY,
    shows: Issued | None = None,
    name: str | None = None,
    secure: bool = True,
) -> Iterator[Callable[[], bool]]:
    """Whether the server serves, over a new connection."""
    options: list[tuple[str, object]] = [("grpc.use_local_subchannel_pool", 1)]
    if name is not None:
        options.append(("grpc.ssl_target_name_override", name))
    credentials = grpc.ssl_channel_credentials(
        authority.pem, shows.key if shows else None, shows.chain if shows else None
    )
    made = grpc.secure_channel(address, credentials, options) if secure else None
    with made or grpc.insecure_channel(address, options) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def serves() -> bool:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_SECONDS)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        yield serves


def refused(address: str, **how: object) -> str:
    """The error that prevents a connection."""
    with client(address, **how) as serves, pytest.raises(grpc.RpcError) as error:
        serves()
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    return error.value.details() or ""


def test_the_servers_certificate_is_checked(everything: Application, folder: Path) -> None:
    with serving(everything, folder) as (address, _):
        with client(address) as serves:
            assert serves()
        with client(address, name="tollwire.example") as serves:
            assert serves()
        assert "CERTIFICATE_VERIFY_FAILED" in refused(address, authority=STRANGER)
        assert "Hostname Verification" in refused(address, name="other.example")
        assert "Hostname Verification" in refused(address.replace("localhost", "127.0.0.1"))


def test_an_expired_certificate_is_not_trusted(everything: Application, tmp_path: Path) -> None:
    expired = AUTHORITY.issue("localhost", valid_from=NOW - 2 * DAY, valid_until=NOW - DAY)
    expired.write(tmp_path)
    with serving(everything, tmp_path, now=NOW - 1.5 * DAY) as (address, _):
        assert "certificate has expired" in refused(address)


def test_clients_are_checked_if_there_are_authorities_for_them(
    everything: Application, folder: Path
) -> None:
    old = AUTHORITY.issue("a.example", valid_from=NOW - 2 * DAY, valid_until=NOW - DAY)
    early = AUTHORITY.issue("a.example", valid_from=NOW + DAY, valid_until=NOW + 2 * DAY)
    with serving(everything, folder, mutual=True) as (address, _):
        for wrong in (None, STRANGER.issue("switch-1.example"), old, early):
            refused(address, shows=wrong)
            with client(address, shows=CLIENT) as serves:
                assert serves()


def test_plain_text_and_tls_do_not_connect(everything: Application, folder: Path) -> None:
    with serving(everything, folder) as (address, _), plain(everything) as plain_address:
        refused(address, secure=False)
        refused(plain_address)
        with client(address) as serves:
            assert serves()
        with client(plain_address, secure=False) as serves:
            assert serves()


def hello(version: int) -> bytes:
    """The first message of a client that supports up to this version, 0x0303 being TLS 1.2."""
    # Known to all of these versions, and for both kinds of keys: ECDHE with AES and SHA-1 or
    # SHA-256.
    suites = bytes.fromhex("c009c00ac013c014c02bc02f")
    extensions = bytes.fromhex(
        "000a 0006 0004 0017 0018"  # groups: P-256, P-384
        "000b 0002 0100"  # points as they are
        "000d 0008 0006 0403 0401 0203"  # signatures: ECDSA and RSA with SHA-256, ECDSA with SHA-1
        "0010 0005 0003 02 6832"  # the protocol above: h2
    )
    body = (
        version.to_bytes(2, "big")
        + os.urandom(32)
        + b"\0"  # no session
        + len(suites).to_bytes(2, "big")
        + suites
        + b"\1\0"  # no compression
        + len(extensions).to_bytes(2, "big")
        + extensions
    )
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return bytes([HANDSHAKE, 3, 1]) + len(message).to_bytes(2, "big") + message


def answer_to(address: str, message: bytes) -> bytes:
    """The first record that a server sends back; b"" where it hangs up."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), DEADLINE_SECONDS) as connection:
        connection.sendall(message)
        with connection.makefile("rb") as answers, contextlib.suppress(ConnectionResetError):
            header = answers.read(5)
            return header + answers.read(int.from_bytes(header[3:5], "big"))
    return b""


def test_no_version_before_1_2_is_spoken(everything: Application, folder: Path) -> None:
    with serving(everything, folder) as (address, tls):
        for pair in (PAIR, AUTHORITY.issue("localhost")):
            pair.write(folder)
            look_twice(tls)
            answer = answer_to(address, hello(0x0303))
            # A server's hello, in the version of the client.
            assert (answer[0], answer[5], answer[9:11]) == (HANDSHAKE, SERVER_HELLO, b"\3\3")
            for old in (0x0300, 0x0301, 0x0302):
                assert answer_to(address, hello(old)) == b""


def look_twice(tls: ServerTls) -> None:
    """A file without a copy may be half written."""
    tls.check_files()
    tls.check_files()


def test_new_files_hold_for_new_connections_and_old_ones_live_on(
    everything: Application, folder: Path
) -> None:
    with serving(everything, folder) as (address, tls), client(address) as before:
        assert before()
        assert shown_by(address) == PAIR.der
        look_twice(tls)
        assert shown_by(address) == PAIR.der
        rotated = STRANGER.issue("localhost")
        rotated.write(folder)
        tls.check_files()
        assert shown_by(address) == PAIR.der
        tls.check_files()
        assert shown_by(address) == rotated.der
        assert before()
        refused(address)
        with client(address, authority=STRANGER) as serves:
            assert serves()


def test_new_authorities_hold_for_new_clients(everything: Application, folder: Path) -> None:
    with serving(everything, folder, mutual=True) as (address, tls):
        with client(address, shows=CLIENT) as serves:
            assert serves()
        STRANGER.write(folder)
        look_twice(tls)
        refused(address, shows=CLIENT)
        with client(address, shows=STRANGER.issue("b.example")) as serves:
            assert serves()


def test_unusable_files_change_nothing_and_are_logged_once(
    everything: Application, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tollwire.tls")
    rotated = AUTHORITY.issue("localhost")
    expired = AUTHORITY.issue("localhost", valid_from=NOW - 2 * DAY, valid_until=NOW - DAY)
    with serving(everything, folder) as (address, tls):
        (folder / "cert.pem").write_bytes(rotated.chain)  # its key comes later
        tls.check_files()
        assert caplog.messages == []
        told = 0
        for broken, word in ((None, "is not the key"), (expired, "expired at"), (b"", "damaged")):
            if isinstance(broken, Issued):
                broken.write(folder)
            elif broken is not None:
                (folder / "key.pem").write_bytes(broken)
            for _ in range(4):
                tls.check_files()
            told += 1
            assert len(caplog.messages) == told
            assert word in caplog.messages[-1]
            assert caplog.records[-1].levelno == logging.ERROR
            assert shown_by(address) == PAIR.der
        (folder / "key.pem").unlink()
        look_twice(tls)
        assert "--tls-key-file: " in caplog.messages[-1]
        rotated.write(folder)
        look_twice(tls)
        assert shown_by(address) == rotated.der
        look_twice(tls)
        assert [r.levelno for r in caplog.records[told:]] == [logging.ERROR, logging.INFO]


def test_a_file_that_is_being_written_is_waited_for(everything: Application, folder: Path) -> None:
    rotated = AUTHORITY.issue("localhost")
    with serving(everything, folder) as (address, tls):
        (folder / "key.pem").write_bytes(rotated.key)
        for end in range(0, len(rotated.chain), 100):
            (folder / "cert.pem").write_bytes(rotated.chain[:end])
            tls.check_files()
        # The certificate is complete, the rest of the chain is not yet written.
        (folder / "cert.pem").write_bytes(rotated.chain)
        tls.check_files()
        (folder / "cert.pem").write_bytes(rotated.chain + AUTHORITY.pem)
        tls.check_files()
        assert shown_by(address) == PAIR.der
        tls.check_files()
        assert shown_by(address) == rotated.der


def test_an_expiring_certificate_is_logged_each_day(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    end = NOW + 60 * DAY
    now = NOW
    tls = ServerTls(files_of(folder), now=lambda: now)

    def warnings_at(when: datetime) -> int:
        nonlocal now
        now = when
        look_twice(tls)
        return len(caplog.messages)

    assert warnings_at(end - 15 * DAY) == 0
    assert warnings_at(end - 13.5 * DAY) == 1
    assert f"until {end:%Y-%m-%d}" in caplog.messages[0]
    assert warnings_at(end - 13 * DAY) == 1
    assert warnings_at(end - 12.4 * DAY) == 2
    AUTHORITY.issue("localhost", valid_until=end + 30 * DAY).write(folder)
    assert warnings_at(end - 12.4 * DAY) == 2
    assert warnings_at(end - 10 * DAY) == 2
    assert warnings_at(end + 17 * DAY) == 3


def test_a_pair_counts_from_when_it_is_valid(everything: Application, folder: Path) -> None:
    early = AUTHORITY.issue("localhost", valid_from=NOW + DAY)
    now = NOW
    tls = ServerTls(files_of(folder), now=lambda: now)
    with plain(everything, tls.credentials) as address:
        early.write(folder)
        look_twice(tls)
        assert shown_by(address) == PAIR.der
        now = NOW + 2 * DAY
        tls.check_files()
        assert shown_by(address) == early.der


def test_the_files_are_checked_repeatedly(everything: Application, folder: Path) -> None:
    tls = ServerTls(files_of(folder), check_seconds=0.01)
    tls.start()
    try:
        with plain(everything, tls.credentials) as address:
            rotated = AUTHORITY.issue("localhost")
            rotated.write(folder)
            deadline = datetime.now().timestamp() + DEADLINE_SECONDS
            while shown_by(address) != rotated.der:
                assert datetime.now().timestamp() < deadline
    finally:
        tls.close()
