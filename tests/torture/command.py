"""``tollwire cdrs upload`` is killed at random moments and run again, as by a cron job; sometimes
the server is killed during it. The result has the totals of an undisturbed upload."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.client import Client
from tests.integration.serving import REPOSITORY
from tests.torture.callfiles import Prices, Totals, mixed_file, new_tenant
from tests.torture.counting import count, verify
from tests.torture.kills import settle
from tests.torture.service import Service, patient, service
from tests.torture.stage import Stage
from tests.torture.tally import Tally
from tollwire.v1 import cdr_service_pb2 as cdr_pb

CALLS_A_KILL = 4_000
CHUNK_CALLS = 50
LONGEST_PAUSE_SECONDS = 0.2
KILLS_A_DEATH_OF_THE_SERVER = 3
PATIENCE_SECONDS = 120


def run(stage: Stage) -> Tally:
    tally = stage.tally("kill -9 of the command")
    draw = stage.draw("command")
    path = stage.folder / "calls.jsonl"
    with service(stage.new_database(), stage.workers) as server:
        with patient(server.address) as client:
            tenant, undisturbed = new_tenant(client), new_tenant(client)
        prices = Prices(tenant)
        calls = CALLS_A_KILL * stage.size.command_kills
        file = mixed_file(f"{stage.seed}/{stage.kind}", "command", tenant.id, calls)
        file.write(path)
        killed = 0
        while killed < stage.size.command_kills and _killed(server, tenant.id, path, draw):
            killed += 1
            stage.say(f"{killed} kills of the command")
            if killed % KILLS_A_DEATH_OF_THE_SERVER == 0:
                server.kill_all()
                server.restart()
        tally.require(killed > 0, "the command ended before it could be killed")
        totals = _finish(_started(server, path, tenant.id))
        expected = _finish(_started(server, path, undisturbed.id))
        tally.require(totals == expected, f"{totals} at the end; undisturbed {expected}")
        by_file = file.totals(prices)
        tally.require(expected == by_file, f"{expected}; by what was sent {by_file}")
        with patient(server.address) as client:
            sent = {call.caller_number: call for call in file.recorded()}
            tally.sent = tally.acknowledged = len(file)
            count(tally, client, tenant.id, sent, sent, prices)
            verify(tally, client)
        settle(tally, server)
    tally.more["kills of the command"] = killed
    return tally


def _killed(server: Service, tenant_id: int, path: Path, draw: random.Random) -> bool:
    """Run the command, and kill it when it has recorded something more.

    False if it ended by itself, which it should not: then the file was too small.
    """
    with patient(server.address) as client:
        before = _recorded(client, tenant_id)
        command = _started(server, path, tenant_id)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while _recorded(client, tenant_id) == before and command.poll() is None:
            assert time.monotonic() < deadline, "the command records nothing"
            time.sleep(0.01)
        time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
    killed = command.poll() is None
    command.kill()
    command.communicate()
    return killed


def _recorded(client: Client, tenant_id: int) -> int:
    usage = client.cdrs.SummarizeUsage(cdr_pb.SummarizeUsageRequest(tenant_id=tenant_id))
    return int(usage.rows[0].calls)


def _started(server: Service, path: Path, tenant_id: int) -> subprocess.Popen[str]:
    arguments = ["cdrs", "upload", str(path), "--tenant", str(tenant_id), "--json"]
    arguments += ["--chunk", str(CHUNK_CALLS), "--server", server.address]
    return subprocess.Popen(
        [sys.executable, "-m", "tollwire.service.cli.main", *arguments],
        env=os.environ | {"XDG_STATE_HOME": str(path.parent)},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(command: subprocess.Popen[str]) -> Totals:
    """The output of the command at its end. It fails, because some records were not stored."""
    out, errors = command.communicate(timeout=PATIENCE_SECONDS)
    assert command.returncode == 1, (command.returncode, errors)
    assert "not stored" in errors, errors
    document = json.loads(out)
    return Totals(**{name: int(document[name]) for name in Totals.__dataclass_fields__})
