"""Keeps the status of a server that ends a stream while the client writes to it.

The write then fails, and grpc.aio replaces the status that has arrived, or is about to, by
INTERNAL (https://github.com/grpc/grpc/issues/36066): a caller could not distinguish a stopping
server from a refusal. This module replaces an attribute of grpc.aio that is not documented. If a
version of grpc does not have it, the error is INTERNAL as before.
"""

from __future__ import annotations

import asyncio
from typing import Any

# After this time without a status there is none.
_STATUS_SECONDS = 2.0


class _KeepsStatus:
    """Stands for the inner call of an RPC: everything but what replaces the status."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def set_internal_error(self, text: str) -> None:
        asyncio.get_running_loop().call_later(_STATUS_SECONDS, self._replace, text)

    def _replace(self, text: str) -> None:
        if not self._inner.done():
            self._inner.set_internal_error(text)


def keep_status(call: Any) -> Any:
    """The RPC itself, which was made just now."""
    inner = getattr(call, "_cython_call", None)
    if hasattr(inner, "set_internal_error"):
        call._cython_call = _KeepsStatus(inner)
    return call
