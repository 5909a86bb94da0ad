"""``Client``: the RPCs of rpcs.py, and what takes more than one message."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.client.coalescing import LARGE_CALL_BYTES, Coalescer
from tollwire.client.deck_messages import DeckMessages
from tollwire.client.errors import TollwireError, UnavailableError, error_of
from tollwire.client.parameters import DEFAULT, CallInfo, Default, Metadata, message
from tollwire.client.recording import OPTIONS, Position
from tollwire.client.request_queue import RequestQueue
from tollwire.client.rpcs import Rpcs
from tollwire.client.uploads import (
    DEFAULT_CHUNK_CALLS,
    DEFAULT_RETRIES,
    DEFAULT_WINDOW,
    Upload,
    UploadOptions,
)
from tollwire.v1.cdr_service_pb2 import ControlTotals
from tollwire.v1.rating_service_pb2 import (
    ImportRatesRequest,
    ImportRatesResponse,
    StreamRateCallsRequest,
)
from tollwire.v1.types_pb2 import Call, ImportMode, Rate, RatedCall, RatedCallView

# The calls of a message of rate_calls, and the messages in flight.
RATED_AT_ONCE = 5_000
RATING_WINDOW = 4


class Client(Rpcs):
    """A client of a Tollwire server; ``with`` closes it. The parameters: Connected.

    Threads may share it; an iterator that it returns belongs to one thread at a time. It does not
    survive a fork: create it in the child process. One client has one connection for each address
    of the server, and RPCs share it.
    """

    def _open(self) -> None:
        super()._open()
        self._rating = Coalescer(self._rate_group)
        self._recording = Coalescer(self._record_group)
        self._position = Position()

    def rate(self, call: Call) -> RatedCall:
        """Prices one call, like RateCall, in one RPC with the calls that other threads pass at the
        same time. A call without a rate is UNRATED, with its reason; TollwireError if the call
        cannot be rated at all. The deadline is the client's ``timeout``."""
        if call.ByteSize() <= LARGE_CALL_BYTES:
            rated = self._rating(call)
            if not rated.HasField("error"):
                return rated
        return self.rate_call(call=call).rated  # raises the error with all its details

    def record(self, call: Call) -> None:
        """Rates and records one call, like CreateCdr, in one transaction with the calls that other
        threads pass at the same time. Returns when the call is durable; a call that was recorded
        before is not recorded again. TollwireError if it is refused. It waits up to about half a
        minute, besides the deadline, for a server that is restarting."""
        if call.ByteSize() > LARGE_CALL_BYTES or not self._recording(call):
            self.create_cdr(call=call)  # raises the error with all its details

    def _rate_group(self, calls: list[Call]) -> Sequence[RatedCall]:
        return self.batch_rate_calls(calls=calls).rated

    def _record_group(self, calls: list[Call]) -> list[bool]:
        """Whether each call is recorded."""
        if len(calls) == 1:
            try:
                self.create_cdr(call=calls[0])
                return [True]
            except UnavailableError:
                pass  # an upload tries longer
        at = self._position
        while True:
            first = at.offset
            recorded = [True] * len(calls)
            upload = Upload(self, calls, at.upload_id, first, OPTIONS)
            try:
                for chunk in upload:
                    at.advance(upload.id, chunk)
                    for failure in chunk.response.failures:
                        recorded[failure.index - first] = False
                return recorded
            except TollwireError as error:
                if not at.continues_after(error):
                    raise

    def import_rates(
        self,
        rates: Iterable[Rate | ImportRatesRequest],
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
        """ImportRates imports a whole deck atomically: if any rate is rejected nothing changes, and
        the response lists the errors.

        ``request`` or its fields are those of the first message. ``rates`` are read in this thread
        while they are sent; if they raise an error, nothing is imported. A whole ImportRatesRequest
        among them is sent as it is. NOT_FOUND (TENANT_NOT_FOUND), RESOURCE_EXHAUSTED
        (TOO_MANY_STREAMS), FAILED_PRECONDITION (IMPORT_INCOMPLETE, IMPORT_GAP).
        """
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
        queue: RequestQueue[ImportRatesRequest] = RequestQueue(2)
        call = self._rating_service.ImportRates.future(
            iter(queue), **self._options(timeout, metadata, is_long=True)
        )
        try:
            for part in _deck(rates, head):
                if not queue.send(part, call):
                    break
            queue.end()
            response: ImportRatesResponse = call.result()
        except grpc.RpcError as error:
            raise error_of(error) from error
        finally:
            call.cancel()  # does nothing after the end
            queue.end()
        if info is not None:
            info.fill(call.initial_metadata(), call.trailing_metadata())
        return response

    def rate_calls(
        self,
        calls: Iterable[Call],
        *,
        min_rate_revision: int = 0,
        view: RatedCallView.ValueType = RatedCallView.RATED_CALL_VIEW_UNSPECIFIED,
        timeout: float | Default | None = DEFAULT,
        metadata: Metadata = (),
    ) -> Iterator[RatedCall]:
        """Prices any number of calls through StreamRateCalls: one result for each, in order. Reads
        the calls in the thread that iterates, at most 20,000 ahead of the results."""
        source = iter(calls)
        sizes: deque[int] = deque()
        requests: RequestQueue[StreamRateCallsRequest] = RequestQueue()
        with self.stream_rate_calls(requests, timeout=timeout, metadata=metadata) as responses:
            try:
                while True:
                    while len(sizes) < RATING_WINDOW and (part := [*islice(source, RATED_AT_ONCE)]):
                        sizes.append(len(part))
                        requests.put(
                            StreamRateCallsRequest(
                                calls=part, min_rate_revision=min_rate_revision, view=view
                            )
                        )
                    if not sizes:
                        return
                    yield from next(responses).rated
                    sizes.popleft()
            finally:
                requests.end()

    def upload(
        self,
        calls: Iterable[Call],
        *,
        upload_id: int = 0,
        offset: int | None = None,
        chunk_calls: int = DEFAULT_CHUNK_CALLS,
        window: int = DEFAULT_WINDOW,
        retries: int = DEFAULT_RETRIES,
        control_totals: Callable[[], ControlTotals] | None = None,
        on_interrupted: Callable[[TollwireError, float], None] | None = None,
    ) -> Upload:
        """Records any number of calls through UploadCdrs. The upload continues after a broken
        connection or a restart of the server.

        Iterate it for each chunk as it becomes durable, or call ``result()``.

        upload_id       continues this upload. ``calls`` are then all calls of the upload, and those
                        that the server has committed are skipped
        offset          the index of the first of ``calls`` within the upload; nothing is skipped
        chunk_calls     calls of a message, each of which is one transaction: 1 to 10,000
        window          messages in flight; memory holds this many
        retries         give up after this many failed attempts in a row
        control_totals  returns the totals of the whole upload, once all calls are read. The server
                        keeps whether they match its own
        on_interrupted  called with the error and the seconds until the next attempt
        """
        options = UploadOptions(chunk_calls, window, retries, control_totals, on_interrupted)
        return Upload(self, calls, upload_id, offset, options)


def _deck(
    rates: Iterable[Rate | ImportRatesRequest], head: ImportRatesRequest
) -> Iterator[ImportRatesRequest]:
    messages = DeckMessages(head)
    for rate in rates:
        yield from messages.add(rate)
    yield from messages.end()
