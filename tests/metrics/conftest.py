"""One server of two workers that has been given some work, for the tests of one module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.client import Client
from tests.integration.serving import ServerProcess
from tests.metrics.scraping import some_work


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
