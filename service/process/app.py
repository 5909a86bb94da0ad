"""The entry points of a server's processes: ``serve`` for ``tollwire serve``, ``work`` for a
worker.

With one worker on grpcio the server runs in this process. Otherwise this process supervises the
workers, and each runs ``work`` (service/process/worker.py, service/process/workers.py).
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from tollwire.service.cache import deck_images, worker_progress
from tollwire.service.domain.errors import CannotListen
from tollwire.service.observability import logs
from tollwire.service.observability.metrics.serving import serve_metrics, single_worker
from tollwire.service.observability.metrics.snapshot import Sources, take_snapshot
from tollwire.service.process.composition import (
    open_database,
    prepare_database,
    rehearse_start,
    wait_for_database,
)
from tollwire.service.process.console import EXPECTED_ERRORS, report_failure, serving_line
from tollwire.service.process.database_wait import Stopped
from tollwire.service.process.events import stop_on_signals
from tollwire.service.process.ports import Reservation, probe
from tollwire.service.process.server_process import Assembly, assemble, run_server
from tollwire.service.process.systemd import Supervision
from tollwire.service.process.template import (
    WORKER_NAME,
    Template,
    launch_with,
    set_process_name,
)
from tollwire.service.process.workers import Supervisor
from tollwire.service.rpc.transports.native_front import require_package
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen
from tollwire.service.settings.pem_files import server_files

if TYPE_CHECKING:
    from tollwire.service.observability.metrics.exposition import WorkerReport

# The time that a worker has after the grace period to close its database.
STOP_MARGIN_SECONDS = 10.0
# The time that a worker has to report its metrics. A worker that does not reply counts as down.
REPLY_SECONDS = 2.0

_LOG = logging.getLogger("tollwire")


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0 after a stop, 1 if the server cannot
    run; the reason is one line on standard error. Call from the main thread."""
    logs.set_up(settings.log_level, settings.log_format, full_numbers=settings.log_full_numbers)
    try:
        if settings.uses_tls:
            _check_certificates(settings)
        is_native = settings.transport == "native"
        if is_native:
            require_package()
        # A native worker ends if its clients use too much memory, and is replaced.
        if settings.workers > 1 or is_native:
            _supervise(settings)
        else:
            _serve_alone(settings)
    except Stopped:
        return 0
    except EXPECTED_ERRORS as error:
        return report_failure(error)
    return 0


def _serve_alone(settings: Settings) -> None:
    stop = stop_on_signals()
    supervision = Supervision()
    probe(settings.listen)
    if settings.health_listen is not None:
        probe(settings.health_listen)
    with ExitStack() as stack:

        def announce(listen: Listen, loaded: Mapping[str, Any], sources: Sources) -> None:
            if settings.metrics_listen is not None:
                stack.enter_context(_metrics(settings.metrics_listen, single_worker(sources)))
            _announce(serving_line(settings, listen, loaded), supervision)

        run_server(settings, stop, announce, share_port=False, supervision=supervision)


def _announce(line: str, supervision: Supervision) -> None:
    print(line, flush=True)
    supervision.ready(line.removeprefix("tollwire: "))


def _supervise(settings: Settings) -> None:
    stop = stop_on_signals()
    supervision = Supervision()
    with ExitStack() as stack:
        reservation = stack.enter_context(Reservation(settings.listen))
        listen = reservation.listen
        settings = settings.model_copy(update={"listen": listen})
        if settings.health_listen is not None:
            health = stack.enter_context(Reservation(settings.health_listen))
            settings = settings.model_copy(update={"health_listen": health.listen})
        # Once here, not in all workers at the same time.
        with closing(open_database(settings)) as database:
            wait = wait_for_database(
                database, settings, lambda: not stop.empty(), supervision.waiting
            )
            prepare_database(database, wait)
            rehearse_start(database)
        parts = assemble(settings, database, share_port=True)
        given = settings.model_dump(mode="json")
        # Forked only now: the workers share what this process needed so far.
        template = Template(
            partial(_work_on, settings, parts),
            launch_with(sys.executable, "-m", "tollwire.service.process.worker"),
            leave=reservation.close,
        )
        stack.enter_context(closing(template))
        memory = stack.enter_context(worker_progress.shared(settings.workers))
        images = stack.enter_context(closing(deck_images.Exchange()))

        def announce(report: Mapping[str, Any]) -> None:
            _announce(serving_line(settings, listen, report), supervision)

        supervisor = Supervisor(
            template.launch,
            given,
            settings.workers,
            stop_seconds=settings.grace_seconds + STOP_MARGIN_SECONDS,
            on_serving=announce,
            on_stopping=lambda: supervision.stopping("stopping"),
            beat=supervision.beat,
            memory=memory,
            images=images,
        )
        if settings.metrics_listen is not None:
            collect = partial(_collect_reports, supervisor)
            stack.enter_context(_metrics(settings.metrics_listen, collect, supervised=True))
        supervisor.run(lambda: not stop.empty())


@contextmanager
def _metrics(
    address: Listen, collect: Callable[[], Mapping[int, WorkerReport]], *, supervised: bool = False
) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            where = stack.enter_context(serve_metrics(address, collect, supervised=supervised))
        except OSError as error:
            raise CannotListen(
                f"--metrics-listen: cannot listen on {address}: {error.strerror}"
            ) from error
        _LOG.info("metrics are at http://%s:%d/metrics", *where)
        yield


def _collect_reports(supervisor: Supervisor) -> Mapping[int, WorkerReport]:
    """The metrics of all workers; those of the database from the first worker only."""
    from tollwire.service.observability.metrics.exposition import WorkerReport

    replies = supervisor.query(lambda worker: {"with_record": worker == 0}, REPLY_SECONDS)
    return {
        worker: WorkerReport(reply.content, reply.is_current, reply.starts)
        for worker, reply in replies.items()
    }


def _check_certificates(settings: Settings) -> None:
    """BadCertificate if the files are not valid: reported once, before the workers start."""
    from tollwire.service.settings import certificates

    certificates.load(server_files(settings))


def work() -> int:
    """Run a worker that was started as a new program: reads settings from standard input, writes
    reports to standard output. The worker stops when the input ends, because then the parent has
    ended. Returns the exit code."""
    settings = Settings(**json.loads(_first_line()))
    logs.set_up(settings.log_level, settings.log_format, full_numbers=settings.log_full_numbers)
    return _work_on(settings)


def _work_on(settings: Settings, inherited: Assembly | None = None) -> int:
    """The same with settings. A worker that was forked inherits them, the log, and the parts of the
    server."""
    set_process_name(WORKER_NAME)
    stop = stop_on_signals()
    if inherited is not None:
        _first_line()

    sources_when_serving: list[Sources] = []

    def reply_to_parent() -> None:
        with open(0, "rb", buffering=0, closefd=False) as parent:
            for request in parent:
                print(
                    json.dumps(take_snapshot(sources_when_serving[0], **json.loads(request))),
                    flush=True,
                )
        stop.put("the parent process has ended")

    threading.Thread(target=reply_to_parent, daemon=True).start()

    def report(listen: Listen, loaded: Mapping[str, Any], sources: Sources) -> None:
        sources_when_serving.append(sources)
        print(json.dumps(loaded), flush=True)

    try:
        run_server(
            settings,
            stop,
            report,
            share_port=True,
            progress=worker_progress.of_this_worker(),
            images=deck_images.of_this_worker(),
            inherited=inherited,
        )
    except Stopped:
        return 0
    except EXPECTED_ERRORS as error:
        return report_failure(error)
    return 0


def _first_line() -> bytes:
    """The settings from the supervisor, which writes them to every worker."""
    with open(0, "rb", buffering=0, closefd=False) as parent:
        return parent.readline()
