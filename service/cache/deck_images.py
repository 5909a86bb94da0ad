"""Images of decks that the workers of a server share: one worker builds a deck, the others map it.

The supervisor keeps the published images (``Exchange``), as files without a name. They end with the
last process that has one open. A worker that has built a deck writes it into such a file, seals it,
which the kernel refuses for a file that is still written, and passes it to the supervisor. From
then on no process can change it. Others receive it with ``take``.

For each tenant one worker builds at a time. It holds a claim, which ends with the worker. A worker
that receives neither an image nor a claim builds the deck for itself. An image is never needed:
without a supervisor, without memory or after an error a worker builds its decks alone.

Must not depend on the database.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar

from ratingcore import Deck
from ratingcore.deck.image import InvalidImage, open_image, write_image

# The environment variable of a worker: its index, and the descriptor of its socket.
VARIABLE = "TOLLWIRE_DECK_IMAGES"
# In place of a tenant: the image of all decks.
ALL_DECKS = 0

# The images of single decks. The system limits the descriptors of a message.
MAX_SINGLE_IMAGES = 100
_MESSAGE_BYTES = 4096
# The supervisor replies within microseconds, but may have to wait for the processor.
_REPLY_SECONDS = 2.0
_POLL_SECONDS = 0.005
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

_LOG = logging.getLogger("tollwire.decks")

T = TypeVar("T")


class Answer(Enum):
    """The reply to a ``take`` without an image."""

    BUILD = auto()  # the caller has the claim: it publishes what it builds, or gives up
    WAIT = auto()  # another worker builds
    ALONE = auto()  # images are not available


@dataclass(frozen=True, slots=True)
class _Image:
    """``revision``: of the deck; of all decks, the number of the last change in them. ``seq``: the
    number of a change that is in it."""

    revision: int
    seq: int
    descriptor: int


class Exchange:
    """The supervisor's side: the published images and the claims. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images: dict[int, _Image] = {}
        self._claims: dict[int, object] = {}

    def connect(self) -> socket.socket:
        """The socket of a new worker. The caller passes it on and closes it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        threading.Thread(target=self._serve, args=(ours,), name="deck images", daemon=True).start()
        return theirs

    def close(self) -> None:
        with self._lock:
            for image in self._images.values():
                os.close(image.descriptor)
            self._images.clear()

    def _serve(self, worker: socket.socket) -> None:
        """Answer one worker until it ends."""
        try:
            while True:
                message, descriptors, _, _ = socket.recv_fds(worker, _MESSAGE_BYTES, 1)
                if not message:
                    return
                with self._lock:
                    content, found = self._answer(worker, json.loads(message), descriptors)
                    socket.send_fds(worker, [json.dumps(content).encode()], found)
        except OSError:
            pass  # the worker has ended
        finally:
            with self._lock:
                for tenant_id in [one for one, owner in self._claims.items() if owner is worker]:
                    del self._claims[tenant_id]
            worker.close()

    def _answer(
        self, worker: object, request: Mapping[str, Any], descriptors: Sequence[int]
    ) -> tuple[Mapping[str, Any], list[int]]:
        """The reply, with its descriptors."""
        tenant_id = request["tenant"]
        if request["do"] == "take":
            return self._take(worker, tenant_id, request["revision"])
        if self._claims.get(tenant_id) is worker:
            del self._claims[tenant_id]
        if request["do"] == "publish":
            image = _Image(request["revision"], request["seq"], descriptors[0])
            self._publish(tenant_id, image)
        return {}, []

    def _take(
        self, worker: object, tenant_id: int, revision: int
    ) -> tuple[Mapping[str, Any], list[int]]:
        image = self._images.get(tenant_id)
        if image is not None and (tenant_id == ALL_DECKS or image.revision == revision):
            images = self._images.values() if tenant_id == ALL_DECKS else [image]
            return {"answer": "FOUND"}, [one.descriptor for one in images]
        owner = self._claims.setdefault(tenant_id, worker)
        return {"answer": (Answer.BUILD if owner is worker else Answer.WAIT).name}, []

    def _publish(self, tenant_id: int, image: _Image) -> None:
        present = self._images.get(tenant_id)
        if present is not None and present.revision >= image.revision:
            os.close(image.descriptor)
            return
        # The last one that was published comes last.
        self._drop(tenant_id)
        self._images[tenant_id] = image
        single = [one for one in self._images if one != ALL_DECKS]
        if tenant_id == ALL_DECKS:
            outdated = [one for one in single if self._images[one].seq <= image.seq]
        else:
            outdated = single[:-MAX_SINGLE_IMAGES]
        for one in outdated:
            self._drop(one)

    def _drop(self, tenant_id: int) -> None:
        image = self._images.pop(tenant_id, None)
        if image is not None:
            os.close(image.descriptor)


class DeckImages:
    """A worker's side. Thread-safe. No method raises: after the first error, which is logged, there
    are no images."""

    def __init__(self, exchange: socket.socket) -> None:
        exchange.settimeout(_REPLY_SECONDS)
        self._exchange = exchange
        self._lock = threading.Lock()
        self.is_available = True

    def take(
        self, tenant_id: int, revision: int, wait_seconds: float = 0.0
    ) -> dict[int, Deck] | Answer:
        """The published decks: of all tenants (``ALL_DECKS``; each at a revision of its own), or of
        one tenant at ``revision``. While another worker builds them, wait until ``wait_seconds``
        have passed."""
        until = time.monotonic() + wait_seconds
        while True:
            found = self._attempt(partial(self._take, tenant_id, revision))
            if found is None:
                return Answer.ALONE
            if found is not Answer.WAIT or time.monotonic() >= until:
                return found
            time.sleep(_POLL_SECONDS)

    def publish(
        self, tenant_id: int, revision: int, seq: int, decks: Iterable[tuple[int, Deck]]
    ) -> dict[int, Deck]:
        """Publish committed decks, and return them as they are in the image. Ends a claim.
        ``seq``: the number of a change that is in them. Empty without images."""
        return self._attempt(partial(self._publish, tenant_id, revision, seq, decks)) or {}

    def give_up(self, tenant_id: int) -> None:
        """End a claim without a deck."""
        self._attempt(partial(self._request, {"do": "give up", "tenant": tenant_id}))

    def close(self) -> None:
        """End the connection. Later calls find no images."""
        with self._lock:
            self.is_available = False
            self._exchange.close()

    def _attempt(self, work: Callable[[], T]) -> T | None:
        if not self.is_available:
            return None
        try:
            return work()
        except (OSError, ValueError, MemoryError) as error:
            # A reply that comes later would be taken for that of the next request.
            with self._lock:
                was_available, self.is_available = self.is_available, False
                self._exchange.close()
            if was_available:
                _LOG.warning(
                    "this worker holds its decks in memory of its own, not shared with the other"
                    " workers: %s",
                    error,
                )
            return None

    def _take(self, tenant_id: int, revision: int) -> dict[int, Deck] | Answer:
        request = {"do": "take", "tenant": tenant_id, "revision": revision}
        content, descriptors = self._request(request)
        if content["answer"] != "FOUND":
            return Answer[content["answer"]]
        try:
            found: dict[int, Deck] = {}
            for descriptor in descriptors:
                for one, deck in _open(descriptor):
                    if one not in found or found[one].revision < deck.revision:
                        found[one] = deck
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if tenant_id != ALL_DECKS and (
            found.keys() != {tenant_id} or found[tenant_id].revision != revision
        ):
            raise InvalidImage(f"an image is not that of tenant {tenant_id} at {revision}")
        return found

    def _publish(
        self, tenant_id: int, revision: int, seq: int, decks: Iterable[tuple[int, Deck]]
    ) -> dict[int, Deck]:
        descriptor = os.memfd_create("tollwire-decks", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            write_image(list(decks), descriptor)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            mapped = dict(_open(descriptor))
            request = {"do": "publish", "tenant": tenant_id, "revision": revision, "seq": seq}
            self._request(request, [descriptor])
        finally:
            os.close(descriptor)
        return mapped

    def _request(
        self, request: Mapping[str, Any], given: Sequence[int] = ()
    ) -> tuple[Mapping[str, Any], list[int]]:
        with self._lock:
            if not self.is_available:
                raise ConnectionError("the supervisor does not answer")
            socket.send_fds(self._exchange, [json.dumps(request).encode()], given)
            message, descriptors, _, _ = socket.recv_fds(
                self._exchange, _MESSAGE_BYTES, MAX_SINGLE_IMAGES + 1
            )
        if not message:
            raise ConnectionError("the supervisor has ended")
        return json.loads(message), descriptors


def _open(descriptor: int) -> list[tuple[int, Deck]]:
    """The decks of a sealed image. InvalidImage, OSError."""
    if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise InvalidImage("an image can still be changed")
    return open_image(descriptor, os.fstat(descriptor).st_size)


def of_this_worker() -> DeckImages | None:
    """The images that the supervisor keeps for this worker; None if there are none."""
    _, _, descriptor = os.environ.pop(VARIABLE, "").partition(":")
    if not descriptor:
        return None
    with contextlib.suppress(OSError):
        return DeckImages(socket.socket(fileno=int(descriptor)))
    return None
