"""Which tokens are accepted, and that a refusal does not reveal what is wrong with a token."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import event

from tollwire.service.accounts.credentials import Credentials
from tollwire.service.accounts.tokens import Tokens
from tollwire.service.domain.errors import Reason, TollwireError, Unauthenticated
from tollwire.service.domain.model import Token
from tollwire.service.domain.request import EVERY_TENANT, Role
from tollwire.service.storage.engine import Database
from tollwire.service.storage.tokens import CLOCK

_DEADLINE_SECONDS = 20
SECRET = "A" * 43


class Worker:
    """One worker: its connections, and the tokens that it has in memory."""

    def __init__(self, url: str) -> None:
        self.now_ns = time.time_ns()
        self.database = Database(url)
        self.credentials = Credentials(self.database, lambda: self.now_ns)
        self.credentials.load()
        self.tokens = Tokens(self.database, self.credentials)

    def make(self, **fields: Any) -> tuple[Token, str]:
        values = {"name": "switch", "role": Role.INGEST, "scope": EVERY_TENANT} | fields
        return self.tokens.create(Token(**values))

    def lets_in(self, text: str) -> bool:
        try:
            self.credentials.of_token(text)
        except Unauthenticated as error:
            assert error.reason is Reason.TOKEN_INVALID
            return False
        return True

    def close(self) -> None:
        self.credentials.close()
        self.database.close()


@pytest.fixture
def worker(database_url: str) -> Iterator[Worker]:
    worker = Worker(database_url)
    yield worker
    worker.close()


@pytest.fixture
def follower(database_url: str) -> Iterator[Worker]:
    """Another worker, which follows the changes of the first."""
    worker = Worker(database_url)
    worker.credentials.follow()
    yield worker
    worker.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def wrong_texts(token_id: int, text: str) -> dict[str, str]:
    """Texts that are not the token."""
    secret = text.removeprefix(f"tw_{token_id}_")
    swapped = ("B" if secret[0] == "A" else "A") + secret[1:]
    return {
        "wrong": f"tw_{token_id}_{swapped}",
        "unknown": f"tw_{token_id + 1}_{secret}",
        "empty": "",
        "no secret": f"tw_{token_id}_",
        "secret alone": secret,
        "cut": text[:-1],
        "longer": text + "A",
        "padded id": f"tw_0{token_id}_{secret}",
        "no id": f"tw_0_{secret}",
        "huge id": f"tw_{10**18}_{secret}",
        "longer id": f"tw_{10**19}_{secret}",
        "line": text + "\n",
        "other digits": text.replace(f"_{token_id}_", "_\u0661_"),
        "upper": text.upper(),
        "not ascii": "tw_1_" + "é" * 43,
        "the stand-in": f"tw_{token_id + 1}_{SECRET}",
    }


def test_only_the_whole_text_is_accepted(worker: Worker) -> None:
    made, text = worker.make()
    assert worker.lets_in(text)
    assert {
        kind for kind, wrong in wrong_texts(made.id, text).items() if worker.lets_in(wrong)
    } == (set())


def test_all_wrong_tokens_get_the_same_message(worker: Worker) -> None:
    made, text = worker.make()
    gone, gone_text = worker.make()
    late, late_text = worker.make(expires_at_ns=worker.now_ns + 10**12)
    worker.tokens.revoke(gone.id)
    worker.now_ns = late.expires_at_ns or 0
    words = set()
    for wrong in (*wrong_texts(made.id, text).values(), gone_text, late_text):
        with pytest.raises(Unauthenticated) as refused:
            worker.credentials.of_token(wrong)
        words.add((refused.value.message, tuple(refused.value.metadata)))
    assert len(words) == 1


def test_a_token_is_valid_until_it_expires(worker: Worker) -> None:
    made, text = worker.make(certificate_identity="here", expires_at_ns=worker.now_ns + 10**12)
    caller = worker.credentials.of_token(text)
    worker.now_ns = (made.expires_at_ns or 0) - 1
    assert worker.lets_in(text) and worker.credentials.is_still_valid(caller)
    assert worker.credentials.of_certificate(["here"]) == caller
    worker.now_ns += 1
    assert not worker.lets_in(text) and not worker.credentials.is_still_valid(caller)
    assert worker.credentials.of_certificate(["here"]) is None


def calls_of(act: Callable[[], Any]) -> list[str]:
    """The names of the functions, compiled ones too, that ``act`` calls, in their order."""
    called: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            called.append(frame.f_code.co_name)
        elif event == "c_call":
            called.append(argument.__name__)

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return called[:-1]  # not the call that ends this


def test_an_unknown_token_costs_the_same_work_as_a_wrong_one(worker: Worker) -> None:
    made, text = worker.make()
    wrong = wrong_texts(made.id, text)
    work = {kind: calls_of(lambda t=wrong[kind]: worker.lets_in(t)) for kind in wrong}
    assert work["unknown"] == work["wrong"]
    for kind, calls in work.items():
        assert calls.count("openssl_sha256") == 1, kind
        assert calls.count("compare_digest") == 1, kind


def test_other_workers_load_new_and_revoked_tokens(worker: Worker, follower: Worker) -> None:
    made, text = worker.make()
    wait_for(lambda: follower.lets_in(text))
    worker.tokens.revoke(made.id)
    wait_for(lambda: not follower.lets_in(text))
    assert len(follower.credentials) == len(worker.credentials) == 0


def test_a_change_without_effect_is_read_once(worker: Worker, follower: Worker) -> None:
    made, text = worker.make()
    wait_for(lambda: follower.lets_in(text))
    worker.tokens.revoke(made.id)
    worker.tokens.revoke(made.id)
    wait_for(lambda: not follower.lets_in(text))
    follower.credentials.load()
    read: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        read.append(statement)

    event.listen(follower.database.engine, "before_cursor_execute", note)
    time.sleep(5 * CLOCK.poll_seconds)
    # At most one check that had begun before.
    assert sum("FROM tokens" in statement for statement in read) <= 1


def test_without_the_database_the_last_tokens_are_valid(
    worker: Worker, follower: Worker, database_url: str
) -> None:
    if not worker.database.is_sqlite:
        return  # tests/faults stops PostgreSQL
    made, text = worker.make()
    wait_for(lambda: follower.lets_in(text))
    path = Path(database_url.removeprefix("sqlite:///"))
    away = path.rename(path.with_name("away.db"))
    with pytest.raises(TollwireError):
        follower.credentials.load()
    assert follower.lets_in(text) and not follower.lets_in(text + "A")
    away.rename(path)
    worker.tokens.revoke(made.id)
    wait_for(lambda: not follower.lets_in(text))
