"""The composition root: the one place that builds everything and hands it on.

``serve`` is what ``tollwire serve`` runs. With one worker the server runs in this process; with
more, ``work`` is what each of them runs (service/process/worker.py, service/process/workers.py).

Order of start: schema prepared, decks loaded (which reaches the database), port bound, serving.
Order of stop: serving no more, RPCs in flight finished, decks followed no more, database closed.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from tollwire.service.accounts.audit import AuditLog
from tollwire.service.accounts.credentials import Credentials
from tollwire.service.accounts.tenants import Tenants
from tollwire.service.accounts.tokens import Tokens
from tollwire.service.cache.decks import Decks
from tollwire.service.cache.worker_progress import Progress, of_this_worker, shared
from tollwire.service.domain.errors import CannotListen, TollwireError
from tollwire.service.observability import logs
from tollwire.service.observability.metrics.backlog import Backlog
from tollwire.service.observability.metrics.database_size import DatabaseSize, last_backup_seconds
from tollwire.service.observability.metrics.serving import serve_metrics, single_worker
from tollwire.service.observability.metrics.snapshot import Connections, Sources, take_snapshot
from tollwire.service.process import tuning
from tollwire.service.process.database_probe import DatabaseProbe
from tollwire.service.process.database_wait import (
    DatabaseWait,
    DatabaseWaitTimeout,
    Stopped,
    ignore_report,
)
from tollwire.service.process.ports import Reservation, probe
from tollwire.service.process.systemd import Supervision
from tollwire.service.process.workers import Supervisor, WorkersFailed
from tollwire.service.rating.calls import Calls
from tollwire.service.rating.rates import Rates
from tollwire.service.record.cdrs import Cdrs
from tollwire.service.record.explanations import Explanations
from tollwire.service.record.feed import Feed
from tollwire.service.record.ledger import Ledger
from tollwire.service.record.retention import FailureRetention
from tollwire.service.record.reversals import Reversals
from tollwire.service.record.uploads import Uploads
from tollwire.service.record.verification import Verification
from tollwire.service.reports.usage import Usage
from tollwire.service.rpc import traces
from tollwire.service.rpc.access_control import AccessControl
from tollwire.service.rpc.capacity import Capacity, chunks_at_once
from tollwire.service.rpc.connections import connection_options
from tollwire.service.rpc.error_map import cause_of
from tollwire.service.rpc.pipeline import Observer, RpcPipeline, count_end, log_end
from tollwire.service.rpc.server import RpcServer, Subjects
from tollwire.service.settings.config import Listen, Settings
from tollwire.service.settings.pem_files import BadCertificate, server_files
from tollwire.service.storage.engine import Database
from tollwire.service.storage.refusals import DatabaseRefused
from tollwire.service.storage.schema import migrate
from tollwire.service.storage.schema.migrate import SchemaError

if TYPE_CHECKING:
    from tollwire.service.observability.metrics.exposition import WorkerReport
    from tollwire.service.rpc.tls import ServerTls

# What ends a server puts its reason here.
Stop = queue.SimpleQueue[str]

# What a worker has open besides connections: the database's, logs, libraries.
OTHER_FILES = 256

# What a worker may take_snapshot, beyond the grace period, to close its database.
STOP_MARGIN_SECONDS = 10.0
# What a worker may take_snapshot to say how it is. One that is stopped, or hangs, is shown as such.
ANSWER_SECONDS = 2.0

# Failures whose words are enough: whoever typed the command can mend them.
EXPECTED_ERRORS = (
    *(BadCertificate, CannotListen, SchemaError, DatabaseRefused, DatabaseWaitTimeout),
    *(traces.TracesUnavailable, TollwireError, WorkersFailed),
)

_POOLED_IN_PART = (
    "a connection pooler answers at --database: prepared statements are not used; notifications"
    " come by --session-database"
)
_POOLED = (
    "a connection pooler answers at --database: prepared statements and LISTEN are not used, and"
    " changes of rates are looked for 50 times a second; --session-database lets them be notified"
)

_LOG = logging.getLogger("tollwire")


@dataclass(frozen=True, slots=True)
class Built:
    """Everything below the wire, over one database."""

    subjects: Subjects
    decks: Decks
    credentials: Credentials
    database: Database
    load_seconds: float


def _never() -> bool:
    return False


@contextmanager
def built(
    settings: Settings,
    is_stopped: Callable[[], bool] = _never,
    report_wait: Callable[[str], None] = ignore_report,
    progress: Progress | None = None,
) -> Iterator[Built]:
    """All subjects, with the decks loaded and followed; closed at the end of the block. A database
    that does not answer yet is waited for. Stopped where ``is_stopped`` becomes true meanwhile.
    ``progress``: of the workers of this server."""
    database = opened(settings)
    retention_days = settings.failure_retention_days
    try:
        wait = _wait_for(database, settings, is_stopped, report_wait)
        is_pooled = wait.run(database.check_sessions)
        if is_pooled:
            _LOG.info("%s", _POOLED if settings.session_database is None else _POOLED_IN_PART)
        wait.run(partial(migrate.prepare, database))
        decks = Decks(database, progress)
        load_seconds = wait.run(partial(_seconds, decks.load))
        credentials = Credentials(database)
        wait.run(credentials.load)
        decks.follow()
        credentials.follow()
        retention = FailureRetention(database, retention_days)
        retention.start()
        try:
            yield Built(
                Subjects(
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
                decks,
                credentials,
                database,
                load_seconds,
            )
        finally:
            retention.close()
            credentials.close()
            decks.close()
    finally:
        database.close()


def opened(settings: Settings) -> Database:
    return Database(
        settings.database,
        wait_seconds=settings.database_wait_seconds,
        session_url=settings.session_database,
    )


def _wait_for(
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


def _seconds(work: Callable[[], object]) -> float:
    """How long it took."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0 when asked to stop, 1 after one line
    on standard error that says why the server cannot run. Belongs to the main thread."""
    logs.set_up(settings.log_level, settings.log_format, full_numbers=settings.log_full_numbers)
    try:
        if settings.uses_tls:
            _check_certificates(settings)
        if settings.workers > 1:
            _supervise(settings)
        else:
            _serve_here(settings)
    except Stopped:
        return 0
    except EXPECTED_ERRORS as error:
        return report_failure(error)
    return 0


def _serve_here(settings: Settings) -> None:
    stop = _stop_on_signals()
    supervision = Supervision()
    probe(settings.listen)
    with ExitStack() as stack:

        def announce(listen: Listen, loaded: Mapping[str, Any], sources: Sources) -> None:
            if settings.metrics_listen is not None:
                stack.enter_context(_metrics(settings.metrics_listen, single_worker(sources)))
            _announce(_serving_line(settings, listen, loaded), supervision)

        _run(settings, stop, announce, share_port=False, supervision=supervision)


def _announce(line: str, supervision: Supervision) -> None:
    print(line, flush=True)
    supervision.ready(line.removeprefix("tollwire: "))


def _supervise(settings: Settings) -> None:
    stop = _stop_on_signals()
    supervision = Supervision()
    with Reservation(settings.listen) as reservation, shared(settings.workers) as memory:
        listen = reservation.listen
        # Once, and not by all workers at the same time.
        database = opened(settings)
        try:
            wait = _wait_for(database, settings, lambda: not stop.empty(), supervision.waiting)
            wait.run(database.check_sessions)
            wait.run(partial(migrate.prepare, database))
        finally:
            database.close()

        def announce(report: Mapping[str, Any]) -> None:
            _announce(_serving_line(settings, listen, report), supervision)

        supervisor = Supervisor(
            [sys.executable, "-m", "tollwire.service.process.worker"],
            settings.model_copy(update={"listen": listen}).model_dump(mode="json"),
            settings.workers,
            stop_seconds=settings.grace_seconds + STOP_MARGIN_SECONDS,
            on_serving=announce,
            on_stopping=lambda: supervision.stopping("stopping"),
            beat=supervision.beat,
            memory=memory,
        )
        with ExitStack() as stack:
            if settings.metrics_listen is not None:
                ask = partial(_heard, supervisor)
                stack.enter_context(_metrics(settings.metrics_listen, ask, supervised=True))
            supervisor.run(lambda: not stop.empty())


@contextmanager
def _metrics(
    address: Listen, ask: Callable[[], Mapping[int, WorkerReport]], *, supervised: bool = False
) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            where = stack.enter_context(serve_metrics(address, ask, supervised=supervised))
        except OSError as error:
            raise CannotListen(
                f"--metrics-listen: cannot listen on {address}: {error.strerror}"
            ) from error
        _LOG.info("metrics are at http://%s:%d/metrics", *where)
        yield


def _heard(supervisor: Supervisor) -> Mapping[int, WorkerReport]:
    """What the workers say of themselves; the first of them also what is the same for all."""
    from tollwire.service.observability.metrics.exposition import WorkerReport

    answers = supervisor.query(lambda slot: {"with_record": slot == 0}, ANSWER_SECONDS)
    return {
        slot: WorkerReport(answer.content, answer.is_current, answer.starts)
        for slot, answer in answers.items()
    }


def _run(
    settings: Settings,
    stop: Stop,
    announce: Callable[[Listen, Mapping[str, Any], Sources], None],
    *,
    share_port: bool,
    supervision: Supervision | None = None,
    progress: Progress | None = None,
) -> None:
    """The life of one server in this process. ``supervision``: to whom it reports; the parent of a
    worker does so for it."""
    tuning.reduce_pauses()
    with (
        _observers(settings) as observers,
        _tls(settings) as tls,
        built(
            settings,
            lambda: not stop.empty(),
            supervision.waiting if supervision else ignore_report,
            progress,
        ) as everything,
        ExitStack() as stack,
    ):
        if not stop.empty():
            return
        access = AccessControl(
            everything.credentials,
            is_open=settings.is_open,
            takes_certificates=settings.tls_client_ca_file is not None,
        )
        tuning.raise_file_limit(settings.max_connections + OTHER_FILES)
        capacity = Capacity(
            settings.max_rpcs,
            settings.max_streams,
            settings.max_request_bytes_in_work,
            # Where nobody needs a token, callers cannot be told apart.
            1.0 if settings.is_open else settings.tenant_share,
            chunks=chunks_at_once(settings.workers),
        )
        server = RpcServer(
            everything.subjects,
            capacity=capacity,
            pipeline=RpcPipeline(
                access,
                access.stays,
                limits=[capacity.shares()],
                observers=observers,
            ),
            connections=connection_options(
                settings.max_connections, settings.max_connection_age_seconds
            ),
            share_port=share_port,
            database_wait_seconds=settings.database_wait_seconds,
        )
        tuning.freeze_loaded_objects()
        listen = server.bind(settings.listen, tls.credentials if tls else None)
        server.start()
        probe = DatabaseProbe(everything.database, server.database_answers)
        probe.start()
        stack.callback(probe.close)
        tenants, rates = everything.decks.size()
        loaded = {"tenants": tenants, "rates": rates, "seconds": everything.load_seconds}
        announce(listen, loaded, _sources(settings, everything, server, tls))
        if supervision is None:
            why = tuning.next_event(stop)
        else:
            why = tuning.next_event(stop, supervision.beat)
            supervision.stopping(f"{why}: stopping")
        _LOG.info("%s: stopping; RPCs in flight have %g s", why, settings.grace_seconds)
        if not server.stop(settings.grace_seconds):
            # Their clients were told, and what they have not committed rolls back. Python would
            # wait for their threads, however long they take_snapshot.
            _LOG.warning("leaving RPCs behind that did not end in time")
            logging.shutdown()
            os._exit(0)


@contextmanager
def _tls(settings: Settings) -> Iterator[ServerTls | None]:
    """What the server proves itself with, while it follows its files; None: plain text."""
    if not settings.uses_tls:
        yield None
        return
    # Not above, as in the next function: what serves plain text does not load what reads these.
    from tollwire.service.rpc.tls import ServerTls

    tls = ServerTls(server_files(settings))
    tls.start()
    try:
        yield tls
    finally:
        tls.close()


def _check_certificates(settings: Settings) -> None:
    """BadCertificate: said once, not by each worker, and before anything is prepared."""
    from tollwire.service.settings import certificates

    certificates.load(server_files(settings))


@contextmanager
def _observers(settings: Settings) -> Iterator[list[Observer]]:
    """Who is told of each RPC's end."""
    observers: list[Observer] = [log_end]
    if settings.metrics_listen is not None:
        observers.append(count_end)
    if not settings.traces:
        yield observers
        return
    provider = traces.start_exporter()
    try:
        yield [*observers, traces.observer(provider)]
    finally:
        provider.shutdown()


def _sources(
    settings: Settings, everything: Built, server: RpcServer, tls: ServerTls | None
) -> Sources:
    """What this process is asked for where metrics are shown."""
    record = settings.backup_record
    return Sources(
        decks=everything.decks,
        connections=lambda: Connections(*everything.database.connections()),
        health=server.serving,
        unrated=Backlog(everything.database).latest,
        certificates=tls.expiries if tls else dict,
        size=DatabaseSize(everything.database, settings.database).latest,
        last_backup_seconds=partial(last_backup_seconds, record) if record else lambda: None,
    )


def report_failure(error: Exception) -> int:
    """Says why on standard error, in one line; the exit code."""
    cause = cause_of(error) if isinstance(error, TollwireError) else ""
    # In one piece: workers that fail together share the terminal.
    sys.stderr.write(f"tollwire: {error}{cause}\n")
    return 1


def _serving_line(settings: Settings, listen: Listen, loaded: Mapping[str, Any]) -> str:
    database = settings.database.partition(":")[0].partition("+")[0]
    tls = "mutual TLS, " if settings.tls_client_ca_file else "TLS, " if settings.uses_tls else ""
    return (
        f"tollwire: serving on {listen} ({tls}{database}, {_count(settings.workers, 'worker')},"
        f" {_count(loaded['tenants'], 'tenant')} and {_count(loaded['rates'], 'rate')} loaded in"
        f" {loaded['seconds']:.1f} s, pid {os.getpid()})"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _stop_on_signals() -> Stop:
    # Not an Event: set() within a signal handler can wait for the very thread that it interrupted.
    stop: Stop = queue.SimpleQueue()

    def ask(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # asked again, the process dies at once
        stop.put(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return stop


def work() -> int:
    """A worker: settings from standard input, a report to standard output, and an end when the
    input ends, because then the parent is gone."""
    stop = _stop_on_signals()
    with open(0, "rb", buffering=0, closefd=False) as parent:
        given = json.loads(parent.readline())
    settings = Settings(**given)
    logs.set_up(settings.log_level, settings.log_format, full_numbers=settings.log_full_numbers)

    asked: list[Sources] = []

    def answer_the_parent() -> None:
        with open(0, "rb", buffering=0, closefd=False) as parent:
            for question in parent:
                print(json.dumps(take_snapshot(asked[0], **json.loads(question))), flush=True)
        stop.put("the parent is gone")

    threading.Thread(target=answer_the_parent, daemon=True).start()

    def report(listen: Listen, loaded: Mapping[str, Any], sources: Sources) -> None:
        asked.append(sources)
        print(json.dumps(loaded), flush=True)

    try:
        _run(settings, stop, report, share_port=True, progress=of_this_worker())
    except Stopped:
        return 0
    except EXPECTED_ERRORS as error:
        return report_failure(error)
    return 0
