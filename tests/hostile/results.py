"""The results of the long forms: build/hostile, as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "hostile"


def written(name: str, document: Mapping[str, Any]) -> Path:
    """Write the document, and print its path."""
    now = datetime.now(UTC)
    path = RESULTS / f"{name}-{now:%Y%m%dT%H%M%SZ}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"ended": now.isoformat(), "machine": platform.platform(), **document}
    path.write_text(json.dumps(whole, indent=2) + "\n")
    print(f"written to {path.relative_to(ROOT)}", flush=True)
    return path
