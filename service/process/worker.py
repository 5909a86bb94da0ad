"""The process of one worker: ``python -m tollwire.service.process.worker``."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    # As in tollwire.service.cli.serve.
    gc.disable()
    from tollwire.service.process import app

    gc.enable()
    return app.work()


if __name__ == "__main__":
    sys.exit(main())
