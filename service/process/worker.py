"""The process of one worker: ``python -m tollwire.service.process.worker``."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    # Before the imports that load data, as in service/cli/serve.py.
    gc.disable()
    from tollwire.service.process import app

    gc.enable()
    return app.work()


if __name__ == "__main__":
    sys.exit(main())
