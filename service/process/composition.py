"""Builds the database and all subjects. No other module does.

Order of start: prepare the schema, load decks and credentials, follow changes. Order of stop: the
reverse, then close the database. Must not depend on servers and ports.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from tollwire.service.accounts.audit import AuditLog
from tollwire.service.accounts.credentials import Credentials
from tollwire.service.accounts.tenants import Tenants
from tollwire.service.accounts.tokens import Tokens
from tollwire.service.cache.deck_images import DeckImages
from tollwire.service.cache.decks import DeckLimits, Decks
from tollwire.service.cache.worker_progress import Progress
from tollwire.service.domain.thread_context import Work
from tollwire.service.process.database_wait import DatabaseWait, ignore_report
from tollwire.service.rating.calls import Calls
from tollwire.service.rating.rates import Rates, rehearse_change
from tollwire.service.record.cdrs import Cdrs
from tollwire.service.record.explanations import Explanations
from tollwire.service.record.feed import Feed
from tollwire.service.record.ledger import Ledger
from tollwire.service.record.retention import FailureRetention
from tollwire.service.record.reversals import Reversals
from tollwire.service.record.signatures import signer
from tollwire.service.record.uploads import Uploads
from tollwire.service.record.verification import Verification
from tollwire.service.reports.usage import Usage
from tollwire.service.rpc.error_map import cause_of
from tollwire.service.rpc.server import Subjects
from tollwire.service.settings.config import Settings
from tollwire.service.settings.pem_files import PemFile
from tollwire.service.storage.decks import change_seq, changed_since
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema import migrate

_POOLED_IN_PART = (
    "--database is a connection pooler: prepared statements are not used; notifications come"
    " through --session-database"
)
_POOLED = (
    "--database is a connection pooler: prepared statements and LISTEN are not used, and changes"
    " of rates are polled 50 times a second; --session-database allows notifications"
)

_LOG = logging.getLogger("tollwire")


@dataclass(frozen=True, slots=True)
class Application:
    """The database and all subjects of one process. ``load_seconds``: the time that the decks took;
    0 before they are loaded."""

    subjects: Subjects
    decks: Decks
    credentials: Credentials
    retention: FailureRetention
    database: Database
    load_seconds: float = 0.0


class _Rehearsed(Exception):
    """Rolls back a rehearsal."""


def _never() -> bool:
    return False


def compose(settings: Settings, database: Database) -> Application:
    """Build all subjects. Uses no connection and starts no thread: the process may be forked."""
    retention_days = settings.failure_retention_days
    limits = DeckLimits(settings.max_tenant_rates, settings.max_deck_bytes)
    decks = Decks(database, limits=limits)
    credentials = Credentials(database)
    return Application(
        subjects=Subjects(
            tenants=Tenants(database, decks),
            rates=Rates(database, decks),
            calls=Calls(decks),
            cdrs=Cdrs(database, decks),
            uploads=Uploads(database, decks, failure_retention_days=retention_days),
            usage=Usage(database),
            reversals=Reversals(database),
            verification=Verification(database),
            explanations=Explanations(database),
            ledger=Ledger(database),
            feed=Feed(database, decks),
            tokens=Tokens(database, credentials),
            audit_log=AuditLog(database),
        ),
        decks=decks,
        credentials=credentials,
        retention=FailureRetention(database, retention_days),
        database=database,
    )


@contextmanager
def loaded(
    application: Application,
    settings: Settings,
    is_stopped: Callable[[], bool] = _never,
    report_wait: Callable[[str], None] = ignore_report,
    progress: Progress | None = None,
    images: DeckImages | None = None,
    *,
    is_prepared: bool = False,
) -> Iterator[Application]:
    """Load the decks and follow their changes; close all at the end of the block. Waits for a
    database that does not answer yet; Stopped if ``is_stopped`` becomes true during the wait.
    ``progress`` and ``images``: what this server's workers share. ``is_prepared``: the process that
    has forked this one has prepared the database."""
    database, decks = application.database, application.decks
    try:
        wait = wait_for_database(database, settings, is_stopped, report_wait)
        if is_prepared:
            # It may have been upgraded since then.
            wait.run(partial(migrate.check, database))
        else:
            prepare_database(database, wait)
            rehearse_start(database)
        decks.share(progress, images)
        load_seconds = wait.run(partial(_seconds, decks.load))
        wait.run(application.credentials.load)
        decks.follow()
        application.credentials.follow()
        application.retention.start()
        try:
            yield replace(application, load_seconds=load_seconds)
        finally:
            application.retention.close()
            application.credentials.close()
            decks.close()
    finally:
        database.close()


@contextmanager
def build_application(settings: Settings) -> Iterator[Application]:
    """``compose`` and ``loaded``."""
    with loaded(compose(settings, open_database(settings)), settings) as application:
        yield application


def open_database(settings: Settings) -> Database:
    return Database(
        settings.database,
        wait_seconds=settings.database_wait_seconds,
        session_url=settings.session_database,
        sign_ledger_entry=entry_signer(settings),
    )


def entry_signer(settings: Settings) -> Callable[[bytes], bytes] | None:
    """The function that signs the entries of the ledger. BadCertificate if its key cannot be
    used."""
    if settings.ledger_key_file is None:
        return None
    file = PemFile("--ledger-key-file", settings.ledger_key_file)
    try:
        return signer(file.read())
    except ValueError as error:
        raise file.wrong(str(error)) from error


def wait_for_database(
    database: Database,
    settings: Settings,
    is_stopped: Callable[[], bool],
    report: Callable[[str], None],
) -> DatabaseWait:
    return DatabaseWait(
        database,
        settings.database_start_wait_seconds,
        is_stopped=is_stopped,
        cause_of=cause_of,
        report=report,
    )


def prepare_database(database: Database, wait: DatabaseWait) -> None:
    """Check that the database can be used, and create the schema in an empty one."""
    if wait.run(database.check_sessions):
        _LOG.info("%s", _POOLED if database.session_engine is None else _POOLED_IN_PART)
    wait.run(partial(migrate.prepare, database))


def rehearse_start(database: Database) -> None:
    """Run on a prepared database what a start and a change of a rate run, without their effects.
    The workers that this process forks then share what that creates: compiled statements, and code
    that Python has specialised. Does nothing if the database refuses it."""
    try:
        Credentials(database).load()
        with database.snapshot(work=Work.LONG) as connection:
            changed_since(connection, change_seq(connection))
        with database.write() as connection:
            rehearse_change(connection)
            raise _Rehearsed
    except _Rehearsed:
        pass
    except Exception as error:
        # Such as a database that can only be read: each worker finds out for itself.
        _LOG.info("the start is not rehearsed: %s", database.explained(error))


def _seconds(work: Callable[[], object]) -> float:
    """Run ``work``. Returns its duration."""
    began = time.monotonic()
    work()
    return time.monotonic() - began
