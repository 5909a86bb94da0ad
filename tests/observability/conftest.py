"""One server of two workers that has done some work, for the tests of one module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.integration.client import Client
from tests.integration.serving import ServerProcess
from tests.observability.scraping import some_work
from tests.rpc.authority import Authority
from tollwire.service.cli.main import main


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("observed")
    with ServerProcess(
        f"sqlite:///{folder / 'tollwire.db'}",
        workers=2,
        TOLLWIRE_METRICS_LISTEN="127.0.0.1:0",
    ) as server:
        with Client(server.address) as client:
            some_work(client)
        yield server


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with mutual TLS, whose database was backed up."""
    folder: Path = tmp_path_factory.mktemp("secured")
    authority = Authority()
    cert, key = authority.issue("localhost").write(folder)
    (folder / "ca.pem").write_bytes(authority.pem)
    url = f"sqlite:///{folder / 'tollwire.db'}"
    with ServerProcess(
        url,
        TOLLWIRE_METRICS_LISTEN="127.0.0.1:0",
        TOLLWIRE_TLS_CERT_FILE=str(cert),
        TOLLWIRE_TLS_KEY_FILE=str(key),
        TOLLWIRE_TLS_CLIENT_CA_FILE=str(folder / "ca.pem"),
    ) as server:
        command = ["backup", "--database", url, str(folder / "copy.db")]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        yield server
