"""Sends RateCall or CreateCdr: with ghz if it is found, else with a client in another process.

ghz uses less of the machine, and its scheduling disturbs latencies less. It is looked for in
.tools/bin, where .ci/tools installs it, and on PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from benchmarks import load
from benchmarks.machine import REPOSITORY
from tollwire.v1.cdr_service_pb2 import CreateCdrRequest
from tollwire.v1.rating_service_pb2 import RateCallRequest
from tollwire.v1.types_pb2 import Call

_TOOLS = REPOSITORY / ".tools" / "bin"


@dataclass(frozen=True, slots=True)
class Method:
    """A unary RPC that sends one call. ``is_unique``: each request needs another call_id."""

    proto: str
    service: str
    name: str
    request: Callable[..., Any]
    is_unique: bool = False


RATE_CALL = Method("rating_service", "RatingService", "RateCall", RateCallRequest)
CREATE_CDR = Method("cdr_service", "CdrService", "CreateCdr", CreateCdrRequest, is_unique=True)


@dataclass(frozen=True, slots=True)
class Measured:
    """The rate and the latencies of the RPC."""

    per_second: float
    latencies_ms: list[float]

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Requests:
    """Requests to send in turn, in the files that the clients read."""

    def __init__(self, folder: Path, calls: Sequence[Call], method: Method = RATE_CALL) -> None:
        self.method = method
        self.as_json = folder / f"{method.name}.json"
        self.as_bytes = folder / method.name
        messages = [method.request(call=call) for call in calls]
        as_dicts = [MessageToDict(message) for message in messages]
        if method.is_unique:
            for one, message in zip(as_dicts, messages, strict=True):
                one["call"]["callId"] = "{{.UUID}}"  # ghz replaces it
                message.call.call_id = load.ROUND_TAG.decode() * 2
        self.as_json.write_text(json.dumps(as_dicts))
        load.write_messages(self.as_bytes, [message.SerializeToString() for message in messages])


def ghz() -> str | None:
    return shutil.which("ghz", path=os.pathsep.join([str(_TOOLS), os.environ.get("PATH", "")]))


def client() -> str:
    """The name of the client in use."""
    return "ghz" if ghz() else "the client of the benchmarks"


class Driver:
    """An RPC sent in the background from now on, for ``seconds``: as fast as ``in_flight`` at one
    time allow, or ``per_second``."""

    def __init__(
        self,
        address: str,
        requests: Requests,
        seconds: float,
        *,
        in_flight: int,
        connections: int = 1,
        per_second: float = 0,
    ) -> None:
        self._name = requests.method.name
        self._ghz: subprocess.Popen[bytes] | None = None
        self._own: load.Background | None = None
        program = ghz()
        if program is None:
            self._own = load.Background(
                "unary",
                address=address,
                method=f"{requests.method.service}/{requests.method.name}",
                messages=str(requests.as_bytes),
                in_flight=in_flight,
                connections=connections,
                seconds=seconds,
                per_second=per_second,
            )
            self._own.wait_until_started()
            return
        method = requests.method
        command = [program, "--insecure", f"--proto=proto/tollwire/v1/{method.proto}.proto"]
        command += ["--import-paths=proto"]
        command += [f"--call=tollwire.v1.{method.service}.{method.name}"]
        command += [f"--data-file={requests.as_json}", "--format=json", "--duration-stop=wait"]
        command += ["--disable-template-functions"]
        if not method.is_unique:
            command += ["--disable-template-data"]
        command += [f"--concurrency={in_flight}", f"--connections={connections}"]
        command += [f"--duration={seconds * 1000:.0f}ms"]
        if per_second:
            command.append(f"--rps={per_second:.0f}")
        self._ghz = subprocess.Popen([*command, address], cwd=REPOSITORY, stdout=subprocess.PIPE)

    def result(self) -> Measured:
        if self._own is not None:
            return Measured(**self._own.result())
        assert self._ghz is not None
        output, _ = self._ghz.communicate()
        report: dict[str, Any] = json.loads(output)
        if set(report["statusCodeDistribution"]) != {"OK"}:
            raise RuntimeError(f"{self._name} was refused: {report['errorDistribution']}")
        return Measured(
            per_second=report["rps"],
            latencies_ms=[call["latency"] / 1e6 for call in report["details"]],
        )


def measure(address: str, requests: Requests, seconds: float, **how: Any) -> Measured:
    return Driver(address, requests, seconds, **how).result()
