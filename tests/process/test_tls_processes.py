"""TLS of whole servers, as `tollwire serve` starts them: settings that they refuse, and that a
rotation of the certificate fails no call."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.process.processes import Process, wait_until
from tests.rpc.authority import DAY, NOW, Authority, shown_by
from tests.rpc.running import DEADLINE_SECONDS
from tollwire.service.cli.main import main
from tollwire.service.process import app
from tollwire.service.settings.config import Settings

SERVING_LINE = re.compile(r"tollwire: serving on 127\.0\.0\.1:(\d+) \(TLS, sqlite, (\d) workers?, ")
# New connections in a row that must show the new certificate: with two workers, the chance that one
# of them was not among them is 2 ** -12, and then nothing fails.
IN_A_ROW = 12

AUTHORITY = Authority()
PAIR = AUTHORITY.issue("localhost")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    PAIR.write(tmp_path)
    AUTHORITY.write(tmp_path)
    return tmp_path


def options(folder: Path) -> dict[str, str]:
    return {
        "listen": "127.0.0.1:0",
        "database": f"sqlite:///{folder / 'tollwire.db'}",
        "tls_cert_file": str(folder / "cert.pem"),
        "tls_key_file": str(folder / "key.pem"),
    }


def arguments(**given: str) -> list[str]:
    return ["serve", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())]


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"tls_cert_file": "", "tls_key_file": ""}, "--listen"),
        ({"access": "open"}, "--access"),
    ],
)
def test_a_public_address_is_not_served_without_tls_and_tokens(
    folder: Path, given: dict[str, str], option: str
) -> None:
    exposed = options(folder) | {"listen": "0.0.0.0:0"} | given
    result = CliRunner().invoke(main, arguments(**exposed))
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith(f"tollwire: {option}: ")
    assert not (folder / "tollwire.db").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_unusable_files_stop_the_start(
    folder: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    AUTHORITY.issue("localhost", valid_from=NOW - 2 * DAY, valid_until=NOW - DAY).write(folder)
    assert app.serve(Settings(**options(folder), workers=workers)) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    (line,) = errors.splitlines()
    assert line.startswith(f"tollwire: --tls-cert-file: {folder / 'cert.pem'} expired at ")
    assert not (folder / "tollwire.db").exists()


class Caller:
    """Calls without a pause until it is stopped, on one connection or on a new one for each call;
    ``failed`` has those that failed."""

    def __init__(self, address: str, *, anew: bool) -> None:
        self.calls = 0
        self.failed: list[str] = []
        self._address = address
        self._anew = anew
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            with connected(self._address) as health:
                self._call(health)
                while not self._anew and not self._stop.is_set():
                    self._call(health)

    def _call(self, health: health_pb2_grpc.HealthStub) -> None:
        try:
            health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_SECONDS)
        except grpc.RpcError as error:
            self.failed.append(f"{error.code()}: {error.details()}")
        self.calls += 1
        self._stop.wait(0.005)  # this test rotates certificates, it does not measure the server

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def connected(address: str) -> Iterator[health_pb2_grpc.HealthStub]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    credentials = grpc.ssl_channel_credentials(AUTHORITY.pem)
    with grpc.secure_channel(address, credentials, options) as channel:
        yield health_pb2_grpc.HealthStub(channel)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_rotation_under_load_fails_no_call(folder: Path, workers: int) -> None:
    given = arguments(**options(folder), workers=str(workers))
    with Process("-m", "tollwire.service.cli.main", *given) as process:
        address = _address(process)
        with (
            connected(address) as watching,
            Caller(address, anew=False) as on_one_connection,
            Caller(address, anew=True) as on_new_ones,
        ):
            watch = watching.Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            for _ in range(IN_A_ROW):
                assert shown_by(address) == PAIR.der
            rotated = AUTHORITY.issue("localhost")
            rotated.write(folder)
            wait_until(lambda: all(shown_by(address) == rotated.der for _ in range(IN_A_ROW)))
            calls = on_one_connection.calls, on_new_ones.calls
            wait_until(lambda: on_one_connection.calls > calls[0] + 10)
            wait_until(lambda: on_new_ones.calls > calls[1] + 2)
            with grpc.insecure_channel(address) as stranger, pytest.raises(grpc.RpcError):
                health_pb2_grpc.HealthStub(stranger).Check(health_pb2.HealthCheckRequest())
            # A stream that began under the old certificate continues.
            assert watch.is_active()
            watch.cancel()
        assert on_one_connection.failed == on_new_ones.failed == []
        assert process.terminate() == 0
        # Each worker logs what it uses and that it stops, and no unknown client.
        told = [line.partition("tollwire")[2] for line in process.errors.rest()]
        assert sum(".tls: new certificates are in use" in line for line in told) == workers
        assert sum("SIGTERM: stopping" in line for line in told) == len(told) - workers == workers


def _address(process: Process) -> str:
    line = process.output.next() or ""
    found = SERVING_LINE.match(line)
    assert found is not None, (line, process.errors.rest() if not line else "")
    return f"localhost:{found[1]}"
