"""The life cycle of one server in this process.

Order of start: load the decks (which reaches the database), bind the port, serve. Order of stop:
set the health to NOT_SERVING, let RPCs in flight finish, stop following changes, close the
database.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tollwire.service.cache.deck_images import DeckImages
from tollwire.service.cache.worker_progress import Progress
from tollwire.service.observability.metrics.backlog import Backlog
from tollwire.service.observability.metrics.database_size import DatabaseSize, last_backup_seconds
from tollwire.service.observability.metrics.snapshot import Connections, Sources
from tollwire.service.process import tuning
from tollwire.service.process.composition import (
    Application,
    compose,
    loaded,
    open_database,
)
from tollwire.service.process.database_probe import DatabaseProbe
from tollwire.service.process.database_wait import ignore_report
from tollwire.service.process.events import Stop, wait_for_event
from tollwire.service.process.systemd import Supervision
from tollwire.service.rpc import traces
from tollwire.service.rpc.access_control import AccessControl
from tollwire.service.rpc.capacity import Capacity, chunks_at_once
from tollwire.service.rpc.connection_guard import ConnectionGuard, accepted_connections
from tollwire.service.rpc.connections import connection_options
from tollwire.service.rpc.pipeline import Observer, RpcPipeline, count_end, log_end
from tollwire.service.rpc.server import RpcServer
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen
from tollwire.service.settings.pem_files import server_files

if TYPE_CHECKING:
    from tollwire.service.rpc.tls import ServerTls
    from tollwire.service.storage.engine import Database

# The open files of a worker besides its clients' connections: database, logs, libraries.
OTHER_FILES = 256

_LOG = logging.getLogger("tollwire")


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of a server."""

    application: Application
    guard: ConnectionGuard
    access: AccessControl
    pipeline: RpcPipeline
    server: RpcServer


def assemble(settings: Settings, database: Database, *, share_port: bool) -> Assembly:
    """Build the parts of a server. Uses no connection and starts no thread: the process may be
    forked, and the forked processes then share what this creates."""
    application = compose(settings, database)
    is_native = settings.transport == "native"
    # The front of the native transport hides the connections of streaming RPCs.
    guard = ConnectionGuard(
        settings.max_connections,
        settings.max_connections_per_address,
        ends_unused=not is_native,
    )
    access = AccessControl(
        application.credentials,
        is_open=settings.may_be_open,
        until_tokens=settings.access == "auto",
        takes_certificates=settings.tls_client_ca_file is not None,
        identified=guard.identified,
    )
    capacity = Capacity(
        max_rpcs=settings.max_rpcs,
        max_streams=settings.max_streams,
        max_request_bytes=settings.max_request_bytes_in_work,
        # Without tokens, callers cannot be distinguished.
        share=1.0 if settings.access == "open" else settings.tenant_share,
        chunks=chunks_at_once(settings.workers),
        stream_wait_seconds=settings.stream_wait_seconds,
    )
    observers: list[Observer] = [log_end]
    if settings.metrics_listen is not None:
        observers.append(count_end)
    pipeline = RpcPipeline(
        access, access.check_again, limits=[capacity.shares()], observers=observers
    )
    most_connections = accepted_connections(settings.max_connections)
    server = RpcServer(
        application.subjects,
        capacity=capacity,
        pipeline=pipeline,
        connections=connection_options(most_connections, settings.max_connection_age_seconds),
        share_port=share_port,
        database_wait_seconds=settings.database_wait_seconds,
        is_native=is_native,
    )
    return Assembly(application, guard, access, pipeline, server)


def run_server(
    settings: Settings,
    stop: Stop,
    announce: Callable[[Listen, Mapping[str, Any], Sources], None],
    *,
    share_port: bool,
    supervision: Supervision | None = None,
    progress: Progress | None = None,
    images: DeckImages | None = None,
    inherited: Assembly | None = None,
) -> None:
    """Serve until ``stop`` has an event. ``announce`` is called when the server serves.
    ``supervision`` sends reports to systemd; None in a worker, whose parent sends them.
    ``progress``, ``images``: see ``loaded``. ``inherited``: the parts of the server, if the process
    that has forked this one has built them and has prepared the database."""
    tuning.reduce_pauses()
    parts = inherited or assemble(settings, open_database(settings), share_port=share_port)
    guard, access, server = parts.guard, parts.access, parts.server
    with (
        _traces(settings, parts.pipeline),
        _tls(settings) as tls,
        loaded(
            parts.application,
            settings,
            lambda: not stop.empty(),
            supervision.waiting if supervision else ignore_report,
            progress,
            images,
            is_prepared=inherited is not None,
        ) as application,
        ExitStack() as stack,
    ):
        if not stop.empty():
            return
        most_connections = accepted_connections(settings.max_connections)
        tuning.raise_file_limit(most_connections + OTHER_FILES)
        tuning.freeze_loaded_objects()
        listen = server.bind(settings.listen, tls.credentials if tls else None)
        if settings.health_listen is not None:
            where = server.bind_health(settings.health_listen)
            _LOG.info("health checks are also answered on %s", where)
        server.start()
        guard.start(listen.port, lambda: not access.is_open())
        stack.callback(guard.close)
        probe = DatabaseProbe(application.database, server.database_answers)
        probe.start()
        stack.callback(probe.close)
        application.decks.on_failed_look(probe.check)
        tenants, rates = application.decks.size()
        report = {
            "tenants": tenants,
            "rates": rates,
            "seconds": application.load_seconds,
            "is_open": access.is_open(),
        }
        announce(listen, report, _sources(settings, application, server, tls))
        if supervision is None:
            reason = wait_for_event(stop)
        else:
            reason = wait_for_event(stop, supervision.beat)
            supervision.stopping(f"{reason}: stopping")
        _LOG.info("%s: stopping; RPCs in flight have %g s", reason, settings.grace_seconds)
        if not server.stop(settings.grace_seconds):
            # The clients have their status, and uncommitted transactions roll back. A normal exit
            # would wait for the threads of these RPCs without a limit.
            _LOG.warning("exiting although some RPCs did not end in time")
            logging.shutdown()
            os._exit(0)


@contextmanager
def _tls(settings: Settings) -> Iterator[ServerTls | None]:
    """The server's certificates, reloaded while the block runs; None: plain text."""
    if not settings.uses_tls:
        yield None
        return
    # Not imported at the top of the module: a plain-text server does not load the library.
    from tollwire.service.rpc.tls import ServerTls

    tls = ServerTls(server_files(settings))
    tls.start()
    try:
        yield tls
    finally:
        tls.close()


@contextmanager
def _traces(settings: Settings, pipeline: RpcPipeline) -> Iterator[None]:
    """Export traces while the block runs, if they are configured."""
    if not settings.traces:
        yield
        return
    provider = traces.start_exporter()
    try:
        pipeline.add_observer(traces.observer(provider))
        yield
    finally:
        provider.shutdown()


def _sources(
    settings: Settings, application: Application, server: RpcServer, tls: ServerTls | None
) -> Sources:
    """The sources of this process's metrics."""
    record = settings.backup_record
    return Sources(
        decks=application.decks,
        connections=lambda: Connections(*application.database.connections()),
        health=server.serving,
        unrated=Backlog(application.database).latest,
        certificates=tls.expiries if tls else dict,
        size=DatabaseSize(application.database, settings.database).latest,
        last_backup_seconds=partial(last_backup_seconds, record) if record else lambda: None,
    )
