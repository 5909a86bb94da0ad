"""The server's side of TLS: grpc's credentials, which are replaced when their files change.

grpc calls a function for new certificates before each handshake and holds a lock during the call.
So a thread reads the files, and the function only returns the prepared result. Existing connections
keep their certificates.

grpc's core accepts TLS 1.2 or newer and has no option for less; tests/rpc/test_tls.py checks that.
service/settings/certificates.py checks the contents of the files.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import grpc

from tollwire.service.domain.background_thread import BackgroundThread
from tollwire.service.rpc.transports.grpcio_internals import reloading_credentials
from tollwire.service.settings.certificates import Material, check, shown, valid_until
from tollwire.service.settings.pem_files import BadCertificate, TlsFiles

# The interval between reads. The files are small, and their contents are more reliable than their
# modification times.
CHECK_SECONDS = 1.0
# Reading a few small files takes less time.
_CLOSE_SECONDS = 5.0
# Renewal tools usually renew certificates some weeks before they expire.
WARN_BEFORE = timedelta(days=14)
WARN_AGAIN_AFTER = timedelta(days=1)

_LOG = logging.getLogger("tollwire.tls")

# The contents of the files, or the reason why they cannot be read.
_State = tuple[bytes | None, ...] | str


def _now() -> datetime:
    return datetime.now(UTC)


class ServerTls:
    """The certificates of one server: its ``credentials``, and a thread from ``start`` to
    ``close``.

    If the files contain certificate authorities, every client needs a certificate that one of them
    has signed: grpc cannot make client certificates optional.
    """

    def __init__(
        self,
        files: TlsFiles,
        *,
        check_seconds: float = CHECK_SECONDS,
        now: Callable[[], datetime] = _now,
    ) -> None:
        """BadCertificate if the files cannot be used."""
        self._files = files
        self._check_seconds = check_seconds
        self._now = now
        contents = files.read()
        material = check(files, contents, now())
        self._in_use: _State = contents
        self._material = material
        self._valid_until = _end(material)
        self._seen: _State = contents  # at the last check
        self._reported: _State | None = None  # what was logged last
        self._warn_at = now()
        # At most one. pop() is atomic, so grpc never waits for a lock of this class.
        self._pending: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)
        self.credentials = reloading_credentials(
            _configuration(material),
            self._next_configuration,
            require_client_certificates=material.authorities is not None,
        )
        self._thread = BackgroundThread("certificates", self._run, close_seconds=_CLOSE_SECONDS)

    def start(self) -> None:
        """Check the files at intervals from now on."""
        self._thread.start()

    def expiries(self) -> dict[str, float]:
        """When the certificates in use expire, in seconds since 1970; certificates.valid_until."""
        return {name: end.timestamp() for name, end in valid_until(self._material).items()}

    def close(self) -> None:
        self._thread.close()

    def _next_configuration(self) -> grpc.ServerCertificateConfiguration | None:
        """grpc calls this before each handshake. None, which the type hints of grpc do not show,
        means that nothing has changed."""
        try:
            return self._pending.pop()
        except IndexError:
            return None

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._check_seconds):
            self.check_files()

    def check_files(self) -> None:
        """Use new contents of the files if they are valid; else log the reason. The contents must
        equal those of the previous check: a file may be half written, and files that are being
        replaced one after the other do not match each other."""
        state: _State
        try:
            state = self._files.read()
        except BadCertificate as error:
            state = str(error)
        if state == self._in_use:
            self._reported = None
        elif state == self._seen:
            self._use(state)
        self._seen = state
        self._warn_of_expiry()

    def _use(self, state: _State) -> None:
        try:
            if isinstance(state, str):
                raise BadCertificate(state)
            material = check(self._files, state, self._now())
        except BadCertificate as error:
            # Once for each state of the files.
            if state != self._reported:
                self._reported = state
                _LOG.error(
                    "new certificate files are not used; the old certificates stay in use: %s",
                    error,
                )
            return
        self._in_use = state
        self._material = material
        self._valid_until = _end(material)
        self._reported = None
        self._warn_at = self._now()
        self._pending.append(_configuration(material))
        _LOG.info("new certificates are in use, valid until %s", shown(self._valid_until))

    def _warn_of_expiry(self) -> None:
        now = self._now()
        if now >= max(self._warn_at, self._valid_until - WARN_BEFORE):
            self._warn_at = now + WARN_AGAIN_AFTER
            _LOG.warning(
                "the certificate in use is valid until %s, and the files contain no newer one",
                shown(self._valid_until),
            )


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    assert material.pair is not None
    return grpc.ssl_server_certificate_configuration(
        [(material.pair.key, material.pair.chain)], material.authorities
    )


def _end(material: Material) -> datetime:
    assert material.pair is not None
    return material.pair.valid_until
