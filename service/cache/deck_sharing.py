"""Shares the large decks that the workers of a server have built, each for itself.

A change of a few rates takes effect fastest if every worker builds the next deck. Once a deck has
not changed for a while, one worker publishes it and all map it, so that the server holds it once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ratingcore import Deck
from ratingcore.base.memory import trim_heap
from tollwire.service.cache.deck_images import Answer, DeckImages

# A smaller deck is not worth a mapping.
MIN_SHARED_BYTES = 2**17
# A deck that has not changed for this time is shared.
QUIET_SECONDS = 2.0
_RETRY_SECONDS = 0.2
_CLOSE_SECONDS = 5.0


class DeckSharing:
    """A thread that waits for decks to share. ``present`` is the deck of a tenant, None without
    one; ``adopt`` replaces decks by equal ones; ``known_seq`` is the number of the last change in
    them."""

    def __init__(
        self,
        images: DeckImages,
        present: Callable[[int], Deck | None],
        adopt: Callable[[dict[int, Deck]], None],
        known_seq: Callable[[], int],
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        self._images = images
        self._present = present
        self._adopt = adopt
        self._known_seq = known_seq
        self._quiet_seconds = quiet_seconds
        self._changed = threading.Condition()
        # When to share the deck of a tenant, by time.monotonic().
        self._due: dict[int, float] = {}
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="deck sharing", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_SECONDS)

    def note(self, tenant_id: int, deck: Deck) -> None:
        """This worker has built a deck of its own."""
        if deck.nbytes < MIN_SHARED_BYTES or not self._images.is_available:
            return
        with self._changed:
            self._due[tenant_id] = time.monotonic() + self._quiet_seconds
            self._changed.notify_all()

    def _run(self) -> None:
        while (tenant_id := self._next()) is not None:
            if self._share(tenant_id) is Answer.WAIT:
                with self._changed:
                    self._due.setdefault(tenant_id, time.monotonic() + _RETRY_SECONDS)

    def _next(self) -> int | None:
        """Wait for the next deck to share. None: the end."""
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                due = min(self._due, key=self._due.__getitem__, default=None)
                if due is not None and self._due[due] <= now:
                    del self._due[due]
                    return due
                self._changed.wait(None if due is None else self._due[due] - now)
        return None

    def _share(self, tenant_id: int) -> Answer | None:
        deck = self._present(tenant_id)
        if deck is None:
            return None
        found = self._images.take(tenant_id, deck.revision)
        if found is Answer.BUILD:
            found = self._images.publish(
                tenant_id, deck.revision, self._known_seq(), [(tenant_id, deck)]
            )
        if isinstance(found, Answer):
            return found
        self._adopt(found)
        del deck
        trim_heap()
        return None
