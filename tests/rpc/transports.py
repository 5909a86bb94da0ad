"""The transports that tests of servers run over: each such test runs once for each of them."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

needs_native = pytest.mark.skipif(
    find_spec("pygrpc_native") is None, reason="pygrpc-native is not installed: make setup"
)
TRANSPORTS = ["grpcio", pytest.param("native", marks=needs_native)]
