"""The process of one worker: ``python -m service.worker``."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    # As in service.cli.serve.
    gc.disable()
    from service import app

    gc.enable()
    return app.work()


if __name__ == "__main__":
    sys.exit(main())
