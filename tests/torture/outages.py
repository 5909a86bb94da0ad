"""PostgreSQL is unavailable during four uploads: stopped as by a crash, and started again;
disconnected; half-open, so that it is silent; and locked by another session.

The server stays. Its clients get UNAVAILABLE and retry; it recovers by itself.
"""

from __future__ import annotations

import random
import time
from collections import Counter

from benchmarks.postgres_server import PostgresServer
from tests.faults.proxy import Proxy
from tests.torture.callfiles import Prices, new_tenant
from tests.torture.counting import verify
from tests.torture.kills import await_progress, check_senders, settle, started_senders
from tests.torture.service import patient, service
from tests.torture.stage import Stage
from tests.torture.tally import Tally

LONGEST_PAUSE_SECONDS = 1.0
# The server's usual wait for its database, and the longest time of a bad connection or a lock: some
# waits succeed, and some fail.
WAIT_SECONDS, LONGEST_FAULT_SECONDS = 2, 5.0
# The first ones in turn: a few cover every kind.
WAYS = ("stopped", "cut off", "half-open", "locked")


def run(stage: Stage) -> Tally:
    tally = stage.tally("PostgreSQL away")
    draw = stage.draw("outages")
    postgres = stage.postgres
    assert postgres is not None
    name = postgres.create()
    played = Counter[str]()
    with (
        Proxy(str(postgres.socket)) as proxy,
        service(
            f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/{name}",
            stage.workers,
            TOLLWIRE_DATABASE_WAIT_SECONDS=f"{WAIT_SECONDS}",
        ) as server,
    ):
        with patient(server.address) as client:
            tenant = new_tenant(client)
        threads = started_senders(stage, server.address, tenant.id)
        for number in range(stage.size.outages):
            await_progress(threads)
            time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
            way = WAYS[number % len(WAYS)]
            _play(way, postgres, name, proxy, draw)
            played[way] += 1
            stage.say(f"{number + 1} outages")
        await_progress(threads)
        for thread in threads:
            thread.finish()
        with patient(server.address) as client:
            check_senders(tally, client, [t.sender for t in threads], tenant.id, Prices(tenant))
            verify(tally, client)
        settle(tally, server)
    tally.kills += played["stopped"]
    tally.restarts += played["stopped"]
    tally.more |= {f"times {way}": times for way, times in played.items()}
    tally.more["broken streams"] = sum(thread.sender.breaks for thread in threads)
    return tally


def _play(way: str, postgres: PostgresServer, name: str, proxy: Proxy, draw: random.Random) -> None:
    """The database is unavailable in that way for a while, and then available again."""
    if way == "stopped":
        postgres.stop_immediately()
        time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
        postgres.start()
    elif way == "locked":
        with postgres.connect(name, autocommit=False) as other:
            other.execute("SELECT id FROM uploads FOR UPDATE")
            time.sleep(draw.uniform(0, LONGEST_FAULT_SECONDS))
    else:
        begin = proxy.drop if way == "cut off" else proxy.swallow
        begin()
        time.sleep(draw.uniform(0, LONGEST_FAULT_SECONDS))
        proxy.restore()
