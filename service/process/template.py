"""A process that forks the workers: it has loaded all modules and does nothing else.

A forked worker serves within a tenth of a second, and shares the memory of the modules with all
others. grpc does not survive a fork once it is in use, and neither does an open connection to a
database: the template has neither. It has one thread, so no lock is held when it forks.

The supervisor and the template communicate over a socket, a message of JSON each. A request
has the environment of the worker and the descriptors for it; the reply has its process id and a
descriptor that names the process; a report has the exit code of a worker that has ended. The
template ends with the socket: its supervisor has ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any, NoReturn, Protocol

from tollwire.service.process import fork_memory

# The names of the processes, as ps and top show them.
WORKER_NAME = "tollwire-worker"
TEMPLATE_NAME = "tollwire-fork"

_MESSAGE_BYTES = 65536
# They are sent to the whole process group; the supervisor stops the workers.
_IGNORED = (signal.SIGTERM, signal.SIGINT)
# The time in which the template forks a worker.
_REPLY_SECONDS = 10.0

_LOG = logging.getLogger("tollwire.workers")


class WorkerProcess(Protocol):
    """A process, as subprocess.Popen has it, with pipes for its standard input and output."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> IO[str] | None: ...
    @property
    def stdout(self) -> IO[str] | None: ...
    @property
    def returncode(self) -> int | Any: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


# Starts a worker. The arguments are its index, and the descriptors that it inherits, each with the
# environment variable that names it as "index:descriptor".
Launch = Callable[[int, Mapping[str, int]], WorkerProcess]


def _nothing() -> None:
    pass


def launch_with(*command: str) -> Launch:
    """Start each worker as a new program."""

    def launch(index: int, shared: Mapping[str, int]) -> WorkerProcess:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {name: f"{index}:{number}" for name, number in shared.items()},
            pass_fds=tuple(shared.values()),
        )

    return launch


def set_process_name(name: str) -> None:
    """At most 15 characters. Not essential, so it never fails."""
    # Not pathlib: each function that a worker calls is memory that it does not share.
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb", 0) as file:  # noqa: PTH123
        file.write(name.encode("ascii"))


class Template:
    """The supervisor's side. Create it while the process has one thread, has no connection to a
    database, and has not used grpc; ``close`` at the end. For one thread."""

    def __init__(
        self, work: Callable[[], int], otherwise: Launch, leave: Callable[[], None] = _nothing
    ) -> None:
        """``work`` is the main function of a worker. ``otherwise`` starts workers if the template
        cannot. ``leave`` closes in the template what it must not inherit."""
        self._otherwise = otherwise
        self._replies: list[tuple[int, int]] = []
        self._codes: dict[int, int] = {}
        self._changed = threading.Condition()
        self._is_gone = False
        self._is_reported = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        fork_memory.prepare()
        self.pid = os.fork()
        if self.pid == 0:
            self._socket.close()
            leave()
            _serve(theirs, work)
        theirs.close()
        self._reader = threading.Thread(target=self._read, name="template", daemon=True)
        # Only the first worker needs the thread.
        self._is_started = False

    def launch(self, index: int, shared: Mapping[str, int]) -> WorkerProcess:
        """See ``Launch``."""
        if not self._is_started:
            self._is_started = True
            self._reader.start()
        try:
            return self._fork(index, shared)
        except OSError as error:
            if not self._is_reported:
                _LOG.warning(
                    "workers cannot be forked (%s): they start as new programs, which takes longer"
                    " and more memory",
                    error,
                )
            self._is_reported = True
            return self._otherwise(index, shared)

    def close(self) -> None:
        """End the template. Its workers have ended before."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._is_started:
            self._reader.join()
        self._socket.close()
        for _, descriptor in self._replies:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def exit_code(self, pid: int, seconds: float) -> int | None:
        """The exit code of a worker that has ended; None if the template has not reported it."""
        with self._changed:
            self._changed.wait_for(lambda: pid in self._codes or self._is_gone, seconds)
            return self._codes.pop(pid, None)

    def _fork(self, index: int, shared: Mapping[str, int]) -> WorkerProcess:
        if self._is_gone:
            raise ConnectionError("the process that forks them has ended")
        their_input, our_input = os.pipe()
        our_output, their_output = os.pipe()
        try:
            request = json.dumps({"index": index, "variables": list(shared)}).encode()
            given = [their_input, their_output, *shared.values()]
            socket.send_fds(self._socket, [request], given)
            with self._changed:
                if not self._changed.wait_for(
                    lambda: bool(self._replies) or self._is_gone, _REPLY_SECONDS
                ):
                    raise TimeoutError("the process that forks them does not reply")
                if not self._replies:
                    raise ConnectionError("the process that forks them has ended")
                pid, descriptor = self._replies.pop()
        except BaseException:
            os.close(our_input)
            os.close(our_output)
            raise
        finally:
            os.close(their_input)
            os.close(their_output)
        return _Forked(self, pid, descriptor, our_input, our_output)

    def _read(self) -> None:
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._socket, _MESSAGE_BYTES, 1)
            except OSError:
                message, descriptors = b"", []
            with self._changed:
                if message:
                    content = json.loads(message)
                    if descriptors:
                        self._replies.append((content["pid"], descriptors[0]))
                    else:
                        self._codes[content["pid"]] = content["code"]
                else:
                    self._is_gone = True
                self._changed.notify_all()
            if not message:
                return


class _Forked:
    """A worker that the template has forked. Any thread may use it."""

    def __init__(
        self, template: Template, pid: int, descriptor: int, stdin: int, stdout: int
    ) -> None:
        """``descriptor``: of the process. A process id could name another process by now."""
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: IO[str] | None = open(stdin, "w", encoding="utf-8")  # noqa: SIM115
        self.stdout: IO[str] | None = open(stdout, encoding="utf-8")  # noqa: SIM115
        self._template = template
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def __del__(self) -> None:
        os.close(self._descriptor)

    def poll(self) -> int | None:
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(WORKER_NAME, timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, seconds: float | None) -> int | None:
        watch = select.poll()
        watch.register(self._descriptor, select.POLLIN)
        if self.returncode is None and watch.poll(None if seconds is None else seconds * 1000):
            with self._lock:
                if self.returncode is None:
                    code = self._template.exit_code(self.pid, _REPLY_SECONDS)
                    # Only the template receives the exit code. If it has ended, the code is lost.
                    self.returncode = -signal.SIGKILL if code is None else code
        return self.returncode


# --- The template ---------------------------------------------------------------------------------


def _serve(supervisor: socket.socket, work: Callable[[], int]) -> NoReturn:
    """Fork workers until the supervisor ends."""
    set_process_name(TEMPLATE_NAME)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    watch = select.poll()
    watch.register(supervisor, select.POLLIN)
    watch.register(ended, select.POLLIN)
    try:
        while True:
            for descriptor, _ in watch.poll():
                if descriptor == ended:
                    os.read(ended, _MESSAGE_BYTES)
                    _report_ended(supervisor)
                elif not _fork_one(supervisor, work, (ended, wake)):
                    os._exit(0)
    except OSError:
        os._exit(0)  # the supervisor has ended


def _report_ended(supervisor: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        supervisor.send(json.dumps({"pid": pid, "code": code}).encode())


def _fork_one(supervisor: socket.socket, work: Callable[[], int], unused: tuple[int, ...]) -> bool:
    """Read a request and fork a worker. False: the supervisor has ended."""
    message, descriptors, _, _ = socket.recv_fds(supervisor, _MESSAGE_BYTES, 64)
    if not message:
        return False
    request = json.loads(message)
    # A signal to the worker waits until it is no longer ignored.
    signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        for number in (*_IGNORED, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
        supervisor.close()
        for descriptor in unused:
            os.close(descriptor)
        _become_worker(request, descriptors, work)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    try:
        process = os.pidfd_open(pid)
        try:
            socket.send_fds(supervisor, [json.dumps({"pid": pid}).encode()], [process])
        finally:
            os.close(process)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return True


def _become_worker(
    request: Mapping[str, Any], descriptors: list[int], work: Callable[[], int]
) -> NoReturn:
    code = 1
    try:
        for descriptor, standard in zip(descriptors, (0, 1), strict=False):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        for name, descriptor in zip(request["variables"], descriptors[2:], strict=True):
            os.environ[name] = f"{request['index']}:{descriptor}"
        code = work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # A normal exit would end what the supervisor has begun.
        with contextlib.suppress(Exception):
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
