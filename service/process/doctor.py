"""What is wrong with an installation, or soon will be, and what to do: ``tollwire doctor``.

Looks at everything that a server with these settings needs, and changes nothing. Each part is
looked at whatever is wrong with the others. Whether a port is free is told from outside: who
listens is no business of the subjects.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from tollwire.service.domain.errors import TollwireError
from tollwire.service.settings.config import Listen, Settings
from tollwire.service.settings.pem_files import BadCertificate, server_files
from tollwire.service.storage import examination
from tollwire.service.storage.engine import Database
from tollwire.service.storage.refusals import DatabaseRefused
from tollwire.service.storage.schema.migrate import SchemaError

WAIT_SECONDS = 5.0
# Tokens and certificates expire by the clock, and a period of usage begins by it.
CLOCK_WARNING_SECONDS = 1.0
CLOCK_PROBLEM_SECONDS = 60.0
EXPIRY_WARNING = timedelta(days=30)
FREE_BYTES_WARNING = 1 << 30
# For the database, the log, the files of the program.
OTHER_FILES = 64


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one part, and what to do about it where something is."""

    part: str
    verdict: Verdict
    text: str
    advice: str = ""


def _ok(part: str, text: str) -> Finding:
    return Finding(part, Verdict.OK, text)


def _warning(part: str, text: str, advice: str) -> Finding:
    return Finding(part, Verdict.WARNING, text, advice)


def _problem(part: str, text: str, advice: str) -> Finding:
    return Finding(part, Verdict.PROBLEM, text, advice)


def examine(
    settings: Settings,
    port_trouble: Callable[[Listen], str],
    cause_of: Callable[[Exception], str],
    own_server: Callable[[Listen], bool | None],
) -> Iterator[Finding]:
    """``port_trouble`` says what keeps a server from listening there, "" for nothing;
    ``cause_of`` says what is behind a failure of the database; ``own_server`` whether a Tollwire
    server with these settings serves there, None where something else answers or nothing does."""
    yield from _of_database(settings, cause_of)
    yield from _of_certificates(settings)
    yield from _of_open_files(settings)
    yield from _of_ports(settings, port_trouble, own_server)


def _of_database(settings: Settings, cause_of: Callable[[Exception], str]) -> Iterator[Finding]:
    try:
        file = examination.sqlite_file(settings.database)
    except DatabaseRefused as error:
        yield _refused(error)
        return
    if file is not None:
        folder = file.absolute().parent
        if not os.access(folder, os.W_OK | os.X_OK):
            yield _problem(
                "database",
                f"the folder {folder} does not exist, or this user cannot write to it",
                "create it, and let the server's user write to it",
            )
            return
        yield _of_disk(examination.free_bytes(file), str(folder))
        if not file.exists():
            yield _ok("database", f"{file} does not exist yet; tollwire serve creates it")
            return
    try:
        database = Database(
            settings.database,
            pool_size=1,
            wait_seconds=WAIT_SECONDS,
            session_url=settings.session_database,
        )
    except DatabaseRefused as error:
        yield _refused(error)
        return
    try:
        with database.refusals_named():
            answers = examination.ask(database)
            is_pooled = database.check_sessions()
        yield _ok("database", f"{answers.version} answers")
        if is_pooled:
            yield _of_a_pooler(settings)
        yield from _of_answers(answers, settings)
        if answers.schema == answers.needed_schema:
            yield _of_access(settings, database)
    except SchemaError as error:
        yield _problem("migrations", str(error), "check --database")
    except DatabaseRefused as error:
        yield _refused(error)
    except TollwireError as error:
        yield _problem(
            "database",
            f"{error}{cause_of(error)}",
            "check --database, that the database runs, and that this machine may reach it",
        )
    finally:
        database.close()


def _of_a_pooler(settings: Settings) -> Finding:
    told = "by --session-database" if settings.session_database else "not at all, only looked for"
    return _ok("pooler", f"a connection pooler answers; changes of rates are notified {told}")


def _refused(error: DatabaseRefused) -> Finding:
    wrong, _, advice = str(error).rpartition("; ")
    return _problem("database", wrong or advice, advice)


def _of_disk(free_bytes: int, folder: str) -> Finding:
    text = f"{free_bytes / 2**30:,.1f} GiB are free in {folder}"
    if free_bytes < FREE_BYTES_WARNING:
        return _warning("disk", text, "make room: uploads fail where the disk is full")
    return _ok("disk", text)


def _of_answers(answers: examination.Answers, settings: Settings) -> Iterator[Finding]:
    if answers.schema is None:
        yield _ok("migrations", "the database is empty; tollwire serve sets it up")
    elif answers.schema != answers.needed_schema:
        yield _problem(
            "migrations",
            f"the database has schema {answers.schema}, this release needs {answers.needed_schema}",
            "make a backup, stop all servers and run: tollwire migrate",
        )
    else:
        yield _ok("migrations", f"the database has schema {answers.schema}, as it must")
    if answers.clock_ahead_seconds is not None:
        yield _of_clock(answers.clock_ahead_seconds)
    if answers.unsafe_settings:
        yield _problem(
            "durability",
            f"the database runs with {' and '.join(answers.unsafe_settings)} off",
            "turn them on: otherwise a power cut takes records that were acknowledged",
        )
    if answers.max_connections is not None:
        yield _of_connections(answers.max_connections, settings.workers)


def _of_clock(ahead_seconds: float) -> Finding:
    apart = abs(ahead_seconds)
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    text = f"the database's clock is {apart:.1f} s {direction} this machine's"
    advice = "let both follow a time server: tokens, certificates and periods go by the clock"
    if apart >= CLOCK_PROBLEM_SECONDS:
        return _problem("clock", text, advice)
    if apart >= CLOCK_WARNING_SECONDS:
        return _warning("clock", text, advice)
    return _ok("clock", "the database's clock and this machine's agree")


def _of_connections(allowed: int, workers: int) -> Finding:
    needed = workers * examination.CONNECTIONS_A_WORKER
    text = f"the database allows {allowed} connections, the workers take up to {needed}"
    if allowed < needed:
        return _warning("database connections", text, "raise max_connections, or take less workers")
    return _ok("database connections", text)


def _of_access(settings: Settings, database: Database) -> Finding:
    if settings.is_open:
        return _ok("access", "whoever reaches the server may do everything, without a token")
    if examination.has_tokens(database, time.time_ns()):
        return _ok("access", "tokens are demanded, and there are some")
    return _warning(
        "access", "tokens are demanded, and there is none", "make one: tollwire tokens first"
    )


def _of_certificates(settings: Settings) -> Iterator[Finding]:
    if not settings.uses_tls:
        if settings.insecure:
            yield _warning(
                "certificates",
                "none: what is sent can be read on the network",
                "give --tls-cert-file and --tls-key-file, or be sure of the network",
            )
        else:
            yield _ok("certificates", "none: plain text, which does not leave this machine")
        return
    # It loads a library that servers of plain text do without.
    from tollwire.service.settings import certificates

    try:
        pair = certificates.load(server_files(settings)).pair
    except BadCertificate as error:
        yield _problem(
            "certificates", str(error), "put files there that fit, or correct the options"
        )
        return
    assert pair is not None
    text = f"for {', '.join(pair.names) or 'no name'}, until {pair.valid_until:%Y-%m-%d}"
    if not pair.names:
        yield _problem("certificates", text, "take one with names: clients compare them")
    elif pair.valid_until - datetime.now(UTC) < EXPIRY_WARNING:
        yield _warning("certificates", text, "renew it; the server takes the new files by itself")
    else:
        yield _ok("certificates", text)


def _of_open_files(settings: Settings) -> Iterator[Finding]:
    # A server raises what is allowed as far as it may: see tollwire.service.process.tuning.
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.max_connections + examination.CONNECTIONS_A_WORKER + OTHER_FILES
    text = f"a process may have {_limit(allowed)} files open; a worker takes up to {needed:,}"
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        yield _ok("open files", text)
    else:
        yield _warning(
            "open files",
            text,
            "raise it (LimitNOFILE= of systemd, ulimit -Hn), or lower --max-connections",
        )


def _limit(number: int) -> str:
    return "any number of" if number == resource.RLIM_INFINITY else f"{number:,}"


def _of_ports(
    settings: Settings,
    port_trouble: Callable[[Listen], str],
    own_server: Callable[[Listen], bool | None],
) -> Iterator[Finding]:
    for option, listen in (
        ("--listen", settings.listen),
        ("--metrics-listen", settings.metrics_listen),
    ):
        if listen is None:
            continue
        trouble = port_trouble(listen)
        if not trouble:
            yield _ok("port", f"{listen} is free")
        elif "in use" in trouble:
            yield _of_a_port_in_use(option, listen, own_server(listen))
        else:
            yield _problem("port", trouble, f"change {option}")


def _of_a_port_in_use(option: str, listen: Listen, serves: bool | None) -> Finding:
    if serves:
        return _ok("port", f"a Tollwire server answers on {listen}")
    if serves is None:
        return _warning(
            "port",
            f"{listen} is in use, and what listens there does not answer as a Tollwire server"
            " with these settings",
            f"stop that program, or change {option}; ignore this where a server is just starting",
        )
    return _warning(
        "port",
        f"a Tollwire server answers on {listen}, and says that it does not serve",
        "read its log; a server that starts or stops does so for a while",
    )
