"""The server's side of TLS: grpc's credentials, which follow the files that they are made of.

grpc asks before each handshake whether there are new certificates, and holds a lock while it asks.
So a thread looks at the files, and what grpc gets is ready. Connections that exist live on with
what they began with.

TLS 1.2 is the least that grpc's core takes, without an option for less; tests/rpc/test_tls.py shows
it. What is in a file and whether it is fit is service/settings/certificates.py's business.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import grpc

from tollwire.service.settings.certificates import Material, check, shown, valid_until
from tollwire.service.settings.pem_files import BadCertificate, TlsFiles

# Read as often as this; they are small, and times of files say less than what is in them.
LOOK_SECONDS = 1.0
# What renews certificates by itself does so some weeks before their end.
WARN_BEFORE = timedelta(days=14)
WARN_AGAIN_AFTER = timedelta(days=1)

_LOG = logging.getLogger("tollwire.tls")

# What the files hold, or why they cannot be read.
_State = tuple[bytes | None, ...] | str


def _now() -> datetime:
    return datetime.now(UTC)


class ServerTls:
    """What a server proves itself with. ``credentials`` are for one server; ``follow``, ``close``.

    With authorities in the files every client needs a certificate that one of them has signed:
    grpc cannot ask for one and go on without.
    """

    def __init__(
        self,
        files: TlsFiles,
        *,
        look_seconds: float = LOOK_SECONDS,
        now: Callable[[], datetime] = _now,
    ) -> None:
        """BadCertificate where the files cannot serve."""
        self._files = files
        self._look_seconds = look_seconds
        self._now = now
        contents = files.read()
        material = check(files, contents, now())
        self._in_use: _State = contents
        self._material = material
        self._valid_until = _end(material)
        self._seen: _State = contents  # at the last look
        self._told: _State | None = None  # what was complained about
        self._warn_at = now()
        # At most one, which whoever takes it takes at once: no lock that grpc could wait for.
        self._offered: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)
        self.credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(material),
            self._take,  # type: ignore[arg-type]  # may return None, which its type hints leave out
            require_client_authentication=material.authorities is not None,
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="certificates", daemon=True)

    def follow(self) -> None:
        """From now on the files are looked at."""
        self._thread.start()

    def expiries(self) -> dict[str, float]:
        """When the certificates in use end, in seconds since 1970: see certificates.valid_until."""
        return {name: end.timestamp() for name, end in valid_until(self._material).items()}

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _take(self) -> grpc.ServerCertificateConfiguration | None:
        """What grpc asks before each handshake; None: nothing new."""
        try:
            return self._offered.pop()
        except IndexError:
            return None

    def _follow(self) -> None:
        while not self._closing.wait(self._look_seconds):
            self.look()

    def look(self) -> None:
        """Takes what is new in the files, where it is fit, and says so where it is not. Only what
        was there at the last look as well: a file may be half written, and between the first and
        the last of several that are replaced they do not fit each other."""
        state: _State
        try:
            state = self._files.read()
        except BadCertificate as error:
            state = str(error)
        if state == self._in_use:
            self._told = None
        elif state == self._seen:
            self._take_over(state)
        self._seen = state
        self._warn_of_the_end()

    def _take_over(self, state: _State) -> None:
        try:
            if isinstance(state, str):
                raise BadCertificate(state)
            material = check(self._files, state, self._now())
        except BadCertificate as error:
            # Once for each state of the files.
            if state != self._told:
                self._told = state
                _LOG.error("the certificates in use are kept: %s", error)
            return
        self._in_use = state
        self._material = material
        self._valid_until = _end(material)
        self._told = None
        self._warn_at = self._now()
        self._offered.append(_configuration(material))
        _LOG.info("new certificates are in use, valid until %s", shown(self._valid_until))

    def _warn_of_the_end(self) -> None:
        now = self._now()
        if now >= max(self._warn_at, self._valid_until - WARN_BEFORE):
            self._warn_at = now + WARN_AGAIN_AFTER
            _LOG.warning(
                "the certificate in use is valid until %s, and nothing has taken its place",
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
