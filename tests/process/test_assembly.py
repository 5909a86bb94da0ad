"""The parts of a server that a process builds before it forks the workers."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from pathlib import Path
from typing import cast

from tollwire.service.observability import request_ids
from tollwire.service.process.composition import open_database
from tollwire.service.process.server_process import assemble
from tollwire.service.settings.config import Settings
from tollwire.service.storage.change_follower import ChangeFollower
from tollwire.service.storage.decks import CLOCK
from tollwire.service.storage.engine import Database


def test_the_parts_of_a_server_have_no_thread_no_connection_and_no_open_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / "tollwire.db"
    settings = Settings(database=f"sqlite:///{file}", workers=4)

    def held() -> tuple[set[threading.Thread], list[str]]:
        # Also threads that are not started: after a fork they count as ended.
        existing = cast("weakref.WeakSet[threading.Thread]", vars(threading)["_dangling"])
        return set(existing), sorted(os.listdir("/dev/fd"))  # noqa: PTH208

    before = held()
    parts = assemble(settings, open_database(settings), share_port=True)
    assert held() == before
    assert parts.application.database.connections()[:2] == (0, 0)
    assert not file.exists()


def test_a_forked_process_generates_request_ids_of_its_own() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, request_ids.new().encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as from_child:  # noqa: PTH123
        theirs = from_child.read()
    os.waitpid(pid, 0)
    assert theirs.partition("-")[0]
    assert theirs.partition("-")[0] != request_ids.new().partition("-")[0]


def test_a_follower_is_not_late_before_its_start() -> None:
    """A worker that is replaced inherits one that was created long ago."""
    nowhere = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    follower = ChangeFollower(
        nowhere,
        CLOCK,
        "changes",
        logging.getLogger("tollwire.decks"),
        known_seq=lambda: 0,
        refresh=lambda: None,
    )
    time.sleep(0.02)
    started_at = time.monotonic()
    follower.start()
    lag_seconds = follower.lag_seconds()
    # It cannot have known more than at its start.
    assert started_at + lag_seconds <= time.monotonic() + 1e-6
    follower.close()
    nowhere.close()
