"""Concurrent calls of one event loop share RPCs: ``AsyncClient.rate`` and ``AsyncClient.record``.
coalescing.py describes how. Calls that are made before the event loop runs again share a group.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from tollwire.client.coalescing import GROUP_CALLS
from tollwire.v1.types_pb2 import Call

T = TypeVar("T")


class AsyncCoalescer(Generic[T]):
    """Sends calls in groups. ``send`` returns one result for each call, in order, or raises an
    exception, which is then that of each call. One group is on its way at a time."""

    def __init__(self, send: Callable[[list[Call]], Awaitable[Sequence[T]]]) -> None:
        self._send = send
        self._waiting: deque[tuple[Call, asyncio.Future[T]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, call: Call) -> T:
        """The result of this call. A task that is cancelled does not disturb the others."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((call, future))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return await future

    def close(self) -> None:
        """Cancel all calls that wait."""
        if self._task is not None:
            self._task.cancel()
        # A task that has not run yet does not do it.
        self._cancel_waiting()

    def _cancel_waiting(self) -> None:
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()

    async def _run(self) -> None:
        group: list[tuple[Call, asyncio.Future[T]]] = []
        try:
            while self._waiting:
                size = min(len(self._waiting), GROUP_CALLS)
                group = [self._waiting.popleft() for _ in range(size)]
                try:
                    results = await self._send([call for call, _ in group])
                    for (_, future), result in zip(group, results, strict=True):
                        if not future.done():
                            future.set_result(result)
                except Exception as error:
                    for _, future in group:
                        if not future.done():
                            future.set_exception(copy.copy(error))
        finally:
            self._task = None
            for _, future in group:
                future.cancel()  # does nothing after a result
            self._cancel_waiting()
