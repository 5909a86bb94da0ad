"""PostgreSQL is stopped at once, as by a crash, and started again, under four uploads.

The server stays. Its clients are told UNAVAILABLE and try again; it recovers by itself.
"""

from __future__ import annotations

import time

from tests.integration.client import Client
from tests.torture.callfiles import Prices, new_tenant
from tests.torture.counting import verify
from tests.torture.kills import await_progress, check_senders, settle, started_senders
from tests.torture.stage import Stage
from tests.torture.tally import Tally

LONGEST_PAUSE_SECONDS = 1.0


def run(stage: Stage) -> Tally:
    tally = stage.tally("PostgreSQL stopped")
    draw = stage.draw("outages")
    assert stage.postgres is not None
    with stage.serving() as server:
        with Client(server.address) as client:
            tenant = new_tenant(client)
        threads = started_senders(stage, server.address, tenant.id)
        for number in range(stage.size.outages):
            await_progress(threads)
            time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
            stage.postgres.stop_immediate()
            tally.kills += 1
            time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
            stage.postgres.start()
            tally.restarts += 1
            stage.say(f"{number + 1} outages")
        await_progress(threads)
        for thread in threads:
            thread.finish()
        with Client(server.address) as client:
            check_senders(tally, client, [t.sender for t in threads], tenant.id, Prices(tenant))
            verify(tally, client)
        settle(tally, server)
    tally.more["broken streams"] = sum(thread.sender.breaks for thread in threads)
    return tally
