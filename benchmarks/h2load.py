"""Sends one unary RPC over and over with h2load (Debian's nghttp2-client).

It uses a small part of the processor time of ghz, so that fast servers are measured and not their
client. It sends one message only, and does not read the status of gRPC: check the answers first.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class Load:
    """``calls`` were answered, at a rate of ``per_second``."""

    per_second: float
    calls: int


def is_installed() -> bool:
    return shutil.which("h2load") is not None


def measure(
    address: str, method: str, message: Message, folder: Path, seconds: int, *, in_flight: int
) -> Load:
    """``method``: for example "RatingService/RateCall". ``folder`` is for the message's file."""
    data = message.SerializeToString()
    body = folder / "h2load"
    body.write_bytes(b"\0" + len(data).to_bytes(4, "big") + data)
    command = ["h2load", "--clients=1", f"--max-concurrent-streams={in_flight}"]
    command += [f"--duration={seconds}", f"--data={body}"]
    for header in ("content-type: application/grpc", "te: trailers"):
        command += ["--header", header]
    done = subprocess.run(
        [*command, f"http://{address}/tollwire.v1.{method}"],
        capture_output=True,
        text=True,
        check=True,
    )
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    if rate is None or counts is None or counts[2] != "0" or counts[3] != "0":
        raise RuntimeError(f"h2load: {done.stdout}{done.stderr}")
    return Load(float(rate[1]), int(counts[1]))
