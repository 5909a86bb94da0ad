"""Checks an installation for current and coming problems, with advice: ``tollwire doctor``.

Checks everything that a server with these settings needs, and changes nothing. A problem in one
part does not stop the checks of the others. The caller passes in functions that check the ports.
"""

from __future__ import annotations

import os
import resource
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from tollwire.service.domain.errors import TollwireError
from tollwire.service.rpc.connection_guard import accepted_connections
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen
from tollwire.service.settings.pem_files import BadCertificate, server_files
from tollwire.service.storage import examination
from tollwire.service.storage.engine import Database
from tollwire.service.storage.refusals import DatabaseRefused
from tollwire.service.storage.schema import triggers
from tollwire.service.storage.schema.migrate import SchemaError

WAIT_SECONDS = 5.0
# The expiry of tokens and certificates and the periods of usage depend on the clock.
CLOCK_WARNING_SECONDS = 1.0
CLOCK_PROBLEM_SECONDS = 60.0
EXPIRY_WARNING = timedelta(days=30)
FREE_BYTES_WARNING = 1 << 30
# Files for the database, the log and the program itself.
OTHER_FILES = 64


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, with advice if there is a problem."""

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
    """``port_trouble`` returns the reason why a server cannot listen on an address, "" if it can;
    ``cause_of`` the cause of a database failure; ``own_server`` whether a Tollwire server with
    these settings is SERVING there, None if another program or nothing answers."""
    yield from _check_database(settings, cause_of)
    yield from _check_certificates(settings)
    yield from _check_open_files(settings)
    yield from _check_ports(settings, port_trouble, own_server)


def _check_database(settings: Settings, cause_of: Callable[[Exception], str]) -> Iterator[Finding]:
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
                "create it, and give the server's user write access",
            )
            return
        yield _check_disk(examination.free_bytes(file), str(folder))
        if not file.exists():
            yield _ok("database", f"{file} does not exist yet; tollwire serve creates it")
            return
        yield from _check_file_mode(file)
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
            yield _pooler(settings)
        yield from _check_answers(answers, settings)
        if answers.schema == answers.needed_schema:
            yield _check_access(settings, database)
    except SchemaError as error:
        yield _problem("migrations", str(error), "check --database")
    except DatabaseRefused as error:
        yield _refused(error)
    except TollwireError as error:
        yield _problem(
            "database",
            f"{error}{cause_of(error)}",
            "check --database, and that the database runs and this machine can reach it",
        )
    finally:
        database.close()


def _pooler(settings: Settings) -> Finding:
    how = "notified through --session-database" if settings.session_database else "polled"
    return _ok("pooler", f"--database is a connection pooler; changes of rates are {how}")


def _refused(error: DatabaseRefused) -> Finding:
    wrong, _, advice = str(error).rpartition("; ")
    return _problem("database", wrong or advice, advice)


def _check_disk(free_bytes: int, folder: str) -> Finding:
    text = f"{free_bytes / 2**30:,.1f} GiB are free in {folder}"
    if free_bytes < FREE_BYTES_WARNING:
        return _warning("disk", text, "free space: uploads fail if the disk is full")
    return _ok("disk", text)


def _check_file_mode(file: Path) -> Iterator[Finding]:
    found = examination.readable_by_everyone(file)
    if found:
        names = " and ".join(one.name for one in found)
        yield _warning(
            "file mode",
            f"every user of this machine can read telephone numbers in {names}",
            f"run: chmod o= {' '.join(shlex.quote(str(one)) for one in found)}",
        )


def _check_answers(answers: examination.Answers, settings: Settings) -> Iterator[Finding]:
    if answers.schema is None:
        yield _ok("migrations", "the database is empty; tollwire serve sets it up")
    elif answers.schema != answers.needed_schema:
        yield _problem(
            "migrations",
            f"the database has schema {answers.schema}, but this release needs"
            f" {answers.needed_schema}",
            "make a backup, stop all servers and run: tollwire migrate",
        )
    else:
        yield _ok(
            "migrations", f"the database has schema {answers.schema}, which this release needs"
        )
    if answers.missing_triggers:
        yield _problem(
            "triggers",
            "the database does not refuse all changes of the record: these triggers are missing or"
            f" disabled: {triggers.described(answers.missing_triggers)}",
            "find out who removed them, check the record (tollwire ledger verify --root ROOT), and"
            " run: tollwire migrate",
        )
    if answers.defect:
        what, corrected_in = answers.defect
        yield _warning(
            "database version",
            f"{answers.version} has a known defect: {what}",
            f"use {corrected_in}, unless your distribution has corrected this version;"
            " docs/operations.md says how",
        )
    if answers.clock_ahead_seconds is not None:
        yield _check_clock(answers.clock_ahead_seconds)
    if answers.unsafe_settings:
        yield _problem(
            "durability",
            f"the database runs with {' and '.join(answers.unsafe_settings)} off",
            "turn them on: otherwise a power failure can lose acknowledged records",
        )
    if answers.max_connections is not None:
        yield _check_connections(answers.max_connections, settings.workers)


def _check_clock(ahead_seconds: float) -> Finding:
    apart = abs(ahead_seconds)
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    text = f"the database's clock is {apart:.1f} s {direction} this machine's"
    advice = "synchronize both with a time server: tokens, certificates and periods depend on it"
    if apart >= CLOCK_PROBLEM_SECONDS:
        return _problem("clock", text, advice)
    if apart >= CLOCK_WARNING_SECONDS:
        return _warning("clock", text, advice)
    return _ok("clock", "the database's clock and this machine's agree")


def _check_connections(allowed: int, workers: int) -> Finding:
    needed = workers * examination.CONNECTIONS_A_WORKER
    text = f"the database allows {allowed} connections, the workers need up to {needed}"
    if allowed < needed:
        return _warning("database connections", text, "raise max_connections, or use fewer workers")
    return _ok("database connections", text)


def _check_access(settings: Settings, database: Database) -> Finding:
    if settings.access == "open" or (settings.may_be_open and not examination.had_tokens(database)):
        return _ok(
            "access", "every client that can reach the server may call every RPC, without a token"
        )
    if examination.has_tokens(database, time.time_ns()):
        return _ok("access", "requests need a token, and tokens exist")
    return _warning(
        "access", "requests need a token, and none exists", "create one: tollwire tokens first"
    )


def _check_certificates(settings: Settings) -> Iterator[Finding]:
    if not settings.uses_tls:
        if settings.insecure:
            yield _warning(
                "certificates",
                "none: requests and responses are sent in plain text",
                "give --tls-cert-file and --tls-key-file, or use a protected network",
            )
        else:
            yield _ok("certificates", "none: plain text, but only on this machine")
        return
    # Not imported at the top of the module: a plain-text server does not load the library.
    from tollwire.service.settings import certificates

    try:
        pair = certificates.load(server_files(settings)).pair
    except BadCertificate as error:
        yield _problem("certificates", str(error), "replace the files, or correct the options")
        return
    assert pair is not None
    text = f"for {', '.join(pair.names) or 'no name'}, until {pair.valid_until:%Y-%m-%d}"
    if not pair.names:
        yield _problem("certificates", text, "use a certificate with names: clients verify them")
    elif pair.valid_until - datetime.now(UTC) < EXPIRY_WARNING:
        yield _warning("certificates", text, "renew it; the server reloads the files automatically")
    else:
        yield _ok("certificates", text)


def _check_open_files(settings: Settings) -> Iterator[Finding]:
    # A server raises its soft limit up to the hard limit (tuning.py).
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = accepted_connections(settings.max_connections)
    needed = connections + examination.CONNECTIONS_A_WORKER + OTHER_FILES
    text = f"a process can open {_limit(allowed)} files; a worker needs up to {needed:,}"
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


def _check_ports(
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
            yield _check_used_port(option, listen, own_server(listen))
        else:
            yield _problem("port", trouble, f"change {option}")


def _check_used_port(option: str, listen: Listen, serves: bool | None) -> Finding:
    if serves:
        return _ok("port", f"a Tollwire server answers on {listen}")
    if serves is None:
        return _warning(
            "port",
            f"{listen} is in use, and no Tollwire server with these settings answers there",
            f"stop the other program, or change {option}; ignore this while a server starts",
        )
    return _warning(
        "port",
        f"a Tollwire server answers on {listen}, but its health is NOT_SERVING",
        "read its log; this is normal while a server starts or stops",
    )
