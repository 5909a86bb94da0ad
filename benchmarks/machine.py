"""The machine and the commit of a run."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
QUIET_LOAD = 1.5
_VERSIONS = ("grpcio", "protobuf", "phonenumbers", "psycopg", "marisa-trie")


def describe() -> dict[str, Any]:
    """All about the machine, the commit and the time that affects a figure."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _git("rev-parse", "--short=10", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "caches": _caches(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _VERSIONS},
        "load_before": load(),
    }


def load() -> float:
    """The load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def busy(about: Mapping[str, Any]) -> str:
    """A warning if the machine was busy when a run began; "" if it was not."""
    if about["load_before"] <= QUIET_LOAD:
        return ""
    return (
        f"The machine was not quiet (load average {about['load_before']} before the run, and not"
        f" {QUIET_LOAD:g} at most): ratios are of paired runs, times are too long."
    )


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return ""


def _cpu() -> str:
    """The model, with details if the name alone says little, as on virtual machines."""
    facts = dict(
        re.findall(r"^(model name|cpu family|model|stepping)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    )
    if not facts:
        return platform.processor() or platform.machine()
    return (
        f"{facts['model name']} (family {facts.get('cpu family')}, model {facts.get('model')},"
        f" stepping {facts.get('stepping')})"
    )


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def _caches() -> str:
    """The data caches of a core, smallest first."""
    found = []
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = (
            (cache / name).read_text().strip() for name in ("type", "level", "size")
        )
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found)
