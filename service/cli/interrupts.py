"""Records interrupts (Ctrl-C, SIGINT), so that none is lost.

Python raises KeyboardInterrupt at the current position of the main thread. In a finalizer or a
callback from C the exception does not propagate: Python prints it, and a long command continues. So
the interrupt is also recorded, and commands check for it where they can stop.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Interrupts:
    """Records interrupts while the block runs. For the main thread. Does nothing if interrupts are
    ignored, for example under nohup."""

    def __init__(self) -> None:
        self._noted = False
        self._wanted = False

    def __enter__(self) -> Interrupts:
        self._wanted = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._wanted:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._wanted:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, signal_number: int, frame: FrameType | None) -> None:
        self._noted = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """KeyboardInterrupt if there was an interrupt."""
        if self._noted:
            raise KeyboardInterrupt
