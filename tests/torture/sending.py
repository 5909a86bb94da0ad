"""A sender that survives the server: it notes acknowledged records, and continues after them.

The notes are its own: a line in a file for each response, written before the next chunk is sent.
They are independent of later responses of the server, and the final check compares the server with
them.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from tests.integration.client import Client, chunk
from tests.torture.callfiles import CallFile, Totals
from tests.torture.service import patient
from tollwire.v1 import cdr_service_pb2 as cdr_pb

RETRY_SECONDS = 0.05
CONNECT_SECONDS = 1
# The longest outage of a server or a database.
PATIENCE_SECONDS = 90
# The codes that a client may get while a server or its database dies; any other is a defect.
_MAY_PASS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True)
class Note:
    """The records from ``begin`` to before ``end`` of a file were answered, with these counts."""

    file: str
    upload_id: int
    begin: int
    end: int
    totals: Totals


class Notes:
    """The notes of one sender, in a file that only grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, note: Note) -> None:
        os.write(self._file, json.dumps(asdict(note)).encode() + b"\n")

    def read(self) -> Iterator[Note]:
        """All notes, from the file."""
        for line in self.path.read_text().splitlines():
            fields = json.loads(line)
            yield Note(**fields | {"totals": Totals(**fields["totals"])})

    def close(self) -> None:
        os.close(self._file)


class Sender:
    """Uploads one file after the other, each until the last record is acknowledged.

    ``sent`` counts records, each as often as it was sent; ``ticks`` the responses; ``finished`` has
    the completed files, with the ids of their uploads.
    """

    def __init__(self, address: str, notes: Notes, window: int, draw: random.Random) -> None:
        self.sent = 0
        self.ticks = 0
        self.breaks = 0
        self.finished: list[tuple[CallFile, int]] = []
        self.lost: list[str] = []  # if the server has less than it acknowledged
        self._address = address
        self.notes = notes
        self._window = window
        self._draw = draw
        self._acknowledged = 0

    def send(self, file: CallFile) -> None:
        cuts = _cuts(len(file), self._draw)
        self._acknowledged = 0
        upload_id = 0
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            before = self.ticks
            try:
                with patient(self._address) as client:
                    grpc.channel_ready_future(client.channel).result(CONNECT_SECONDS)
                    # The id first, without a record: it is known before anything is sent.
                    upload_id = upload_id or client.upload(chunk([]))[0].upload_id
                    self._stream(client, file, cuts, upload_id)
                break
            except grpc.FutureTimeoutError:
                pass  # the server is not up yet
            except grpc.RpcError as error:
                if error.code() not in _MAY_PASS:
                    raise
                self.breaks += 1
            if self.ticks > before:
                deadline = time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer for {PATIENCE_SECONDS} s")
            time.sleep(RETRY_SECONDS)
        self.finished.append((file, upload_id))

    def _stream(self, client: Client, file: CallFile, cuts: list[int], upload_id: int) -> None:
        """One stream, from the last acknowledged record until the end of the file or of the server.

        Sometimes the server is queried for the offset; otherwise everything without a response is
        sent again, and the server answers the records that it has.
        """
        if self._draw.random() < 0.5:
            stands = client.get_upload(upload_id).committed_offset
            if stands < self._acknowledged:
                self.lost.append(f"{file.name}: {stands} of {self._acknowledged} are there")
        else:
            stands = self._acknowledged
        slots = threading.Semaphore(self._window)
        over = threading.Event()
        ends = [cut for cut in cuts if cut > stands]

        def requests() -> Iterator[cdr_pb.UploadCdrsRequest]:
            begin = stands
            for end in ends:
                slots.acquire()
                if over.is_set():
                    return
                self.sent += end - begin
                yield chunk(file.calls[begin:end], begin, upload_id)
                begin = end

        begin = stands
        answers = client.cdrs.UploadCdrs(requests(), timeout=PATIENCE_SECONDS)
        try:
            for end, answer in zip(ends, answers, strict=True):
                assert answer.committed_offset >= end, (answer, end)
                note = Note(file.name, upload_id, begin, end, Totals.of(answer))
                self.notes.write(note)
                self._acknowledged = end
                self.ticks += 1
                begin = end
                slots.release()
        finally:
            over.set()
            slots.release()


def _cuts(size: int, draw: random.Random) -> list[int]:
    """The ends of the chunks of a file. Small ones and large ones."""
    cuts = []
    at = 0
    while at < size:
        at = min(size, at + draw.choice((1, 7, 50, 120, 300)))
        cuts.append(at)
    return cuts


class SenderThread(threading.Thread):
    """A sender that continues with new files until it is stopped. ``join`` raises its error."""

    def __init__(self, sender: Sender, files: Iterator[CallFile]) -> None:
        super().__init__(daemon=True)
        self.sender = sender
        self.enough = threading.Event()
        self._files = files
        self._failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for file in self._files:
                self.sender.send(file)
                if self.enough.is_set():
                    break
        except BaseException as failure:
            self._failure = failure

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        self.enough.set()
        self.join(PATIENCE_SECONDS * 2)
        self.check()
        assert not self.is_alive(), "a sender does not end"
