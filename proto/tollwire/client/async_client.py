"""``AsyncClient``: the RPCs of async_rpcs.py, and what takes more than one message."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.client.aio_status import keep_status
from tollwire.client.async_calls import each
from tollwire.client.async_coalescing import AsyncCoalescer
from tollwire.client.async_rpcs import AsyncRpcs
from tollwire.client.async_uploads import AsyncUpload, until_none
from tollwire.client.client import RATED_AT_ONCE, RATING_WINDOW
from tollwire.client.coalescing import LARGE_CALL_BYTES
from tollwire.client.deck_messages import DeckMessages
from tollwire.client.errors import TollwireError, UnavailableError, error_of
from tollwire.client.parameters import DEFAULT, CallInfo, Default, Metadata, message
from tollwire.client.recording import OPTIONS, Position
from tollwire.client.uploads import (
    DEFAULT_CHUNK_CALLS,
    DEFAULT_RETRIES,
    DEFAULT_WINDOW,
    UploadOptions,
)
from tollwire.v1.cdr_service_pb2 import ControlTotals
from tollwire.v1.rating_service_pb2 import (
    ImportRatesRequest,
    ImportRatesResponse,
    StreamRateCallsRequest,
)
from tollwire.v1.types_pb2 import Call, ImportMode, Rate, RatedCall, RatedCallView


class AsyncClient(AsyncRpcs):
    """A client of a Tollwire server for asyncio; ``async with`` closes it. Parameters: Connected.

    Create and use it in one event loop. Tasks may share it; an iterator that it returns belongs to
    one task at a time. Cancelling a task cancels its RPC.
    """

    def _open(self) -> None:
        super()._open()
        self._rating = AsyncCoalescer(self._rate_group)
        self._recording = AsyncCoalescer(self._record_group)
        self._position = Position()

    async def close(self) -> None:
        self._rating.close()
        self._recording.close()
        await super().close()

    async def rate(self, call: Call) -> RatedCall:
        """Client.rate, in one RPC with the calls that other tasks pass at the same time."""
        if call.ByteSize() <= LARGE_CALL_BYTES:
            rated = await self._rating(call)
            if not rated.HasField("error"):
                return rated
        return (await self.rate_call(call=call)).rated  # raises the error with all its details

    async def record(self, call: Call) -> None:
        """Client.record, in one transaction with the calls that other tasks pass at the same
        time."""
        if call.ByteSize() > LARGE_CALL_BYTES or not await self._recording(call):
            await self.create_cdr(call=call)  # raises the error with all its details

    async def _rate_group(self, calls: list[Call]) -> Sequence[RatedCall]:
        return (await self.batch_rate_calls(calls=calls)).rated

    async def _record_group(self, calls: list[Call]) -> list[bool]:
        """Whether each call is recorded."""
        if len(calls) == 1:
            try:
                await self.create_cdr(call=calls[0])
                return [True]
            except UnavailableError:
                pass  # an upload tries longer
        at = self._position
        while True:
            first = at.offset
            recorded = [True] * len(calls)
            upload = AsyncUpload(self, calls, at.upload_id, first, OPTIONS)
            try:
                async for chunk in upload:
                    at.advance(upload.id, chunk)
                    for failure in chunk.response.failures:
                        recorded[failure.index - first] = False
                return recorded
            except TollwireError as error:
                if not at.continues_after(error):
                    raise

    async def import_rates(
        self,
        rates: Iterable[Rate | ImportRatesRequest] | AsyncIterable[Rate | ImportRatesRequest],
        request: ImportRatesRequest | None = None,
        /,
        *,
        tenant_id: int | None = None,
        mode: ImportMode.ValueType | None = None,
        dry_run: bool | None = None,
        rate_count: int | None = None,
        effective_from: Timestamp | datetime.datetime | None = None,
        allow_gap: bool | None = None,
        timeout: float | Default | None = DEFAULT,
        metadata: Metadata = (),
        info: CallInfo | None = None,
    ) -> ImportRatesResponse:
        """Client.import_rates."""
        head = message(
            ImportRatesRequest,
            request,
            tenant_id=tenant_id,
            mode=mode,
            dry_run=dry_run,
            rate_count=rate_count,
            effective_from=effective_from,
            allow_gap=allow_gap,
        )
        options = self._options(timeout, metadata, is_long=True)
        call = keep_status(self._rating_service.ImportRates(**options))
        try:
            try:
                async for part in _deck(rates, head):
                    await call.write(part)
                await call.done_writing()
            except (grpc.RpcError, asyncio.InvalidStateError):
                if not call.done():
                    raise
                # The RPC has ended early: awaiting it raises why.
            response: ImportRatesResponse = await call
            if info is not None:
                info.fill(await call.initial_metadata(), await call.trailing_metadata())
        except grpc.RpcError as error:
            raise error_of(error) from error
        finally:
            call.cancel()  # does nothing after the end
        return response

    async def rate_calls(
        self,
        calls: Iterable[Call] | AsyncIterable[Call],
        *,
        min_rate_revision: int = 0,
        view: RatedCallView.ValueType = RatedCallView.RATED_CALL_VIEW_UNSPECIFIED,
        timeout: float | Default | None = DEFAULT,
        metadata: Metadata = (),
    ) -> AsyncIterator[RatedCall]:
        """Prices any number of calls through StreamRateCalls: one result for each, in order. Reads
        the calls at most 20,000 ahead of the results."""
        source = each(calls)
        in_flight, is_read = 0, False
        requests: asyncio.Queue[StreamRateCallsRequest | None] = asyncio.Queue()
        sent = until_none(requests)
        async with self.stream_rate_calls(sent, timeout=timeout, metadata=metadata) as responses:
            while True:
                while in_flight < RATING_WINDOW and not is_read:
                    part: list[Call] = []
                    async for call in source:
                        part.append(call)
                        if len(part) == RATED_AT_ONCE:
                            break
                    else:
                        is_read = True
                    if part:
                        in_flight += 1
                        requests.put_nowait(
                            StreamRateCallsRequest(
                                calls=part, min_rate_revision=min_rate_revision, view=view
                            )
                        )
                if not in_flight:
                    return
                for rated in (await anext(responses)).rated:
                    yield rated
                in_flight -= 1

    def upload(
        self,
        calls: Iterable[Call] | AsyncIterable[Call],
        *,
        upload_id: int = 0,
        offset: int | None = None,
        chunk_calls: int = DEFAULT_CHUNK_CALLS,
        window: int = DEFAULT_WINDOW,
        retries: int = DEFAULT_RETRIES,
        control_totals: Callable[[], ControlTotals] | None = None,
        on_interrupted: Callable[[TollwireError, float], None] | None = None,
    ) -> AsyncUpload:
        """Client.upload, with an upload to iterate by ``async for`` or to end by ``await
        upload.result()``."""
        options = UploadOptions(chunk_calls, window, retries, control_totals, on_interrupted)
        return AsyncUpload(self, calls, upload_id, offset, options)


async def _deck(
    rates: Iterable[Rate | ImportRatesRequest] | AsyncIterable[Rate | ImportRatesRequest],
    head: ImportRatesRequest,
) -> AsyncIterator[ImportRatesRequest]:
    messages = DeckMessages(head)
    async for rate in each(rates):
        for part in messages.add(rate):
            yield part
    for part in messages.end():
        yield part
