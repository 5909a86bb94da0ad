"""Stores the id of an upload while it runs, so that the same command resumes it after a crash.

Each upload that has not ended has a small JSON file in the user's state folder. Its name is a hash
of the file's path, size and modification time, the server, and the options that change how the file
is read: if any of them differs, it is another upload.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


def state_folder() -> Path:
    """$XDG_STATE_HOME/tollwire/uploads, or under ~/.local/state."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "tollwire" / "uploads"


@dataclass(frozen=True, slots=True)
class UploadState:
    """The stored id of one upload, in a file."""

    path: Path
    about: dict[str, str | int]

    @classmethod
    def of(cls, file: Path, server: str, reading: Mapping[str, str | int]) -> UploadState:
        """The state of the upload of a file in its current version. ``reading``: the options that
        change how the file is read."""
        status = file.stat()
        about: dict[str, str | int] = {
            "file": str(file.resolve()),
            "size": status.st_size,
            "changed_ns": status.st_mtime_ns,
            "server": server,
            **reading,
        }
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        return cls(state_folder() / f"{name}.json", about)

    def upload_id(self) -> int:
        """The id of the upload that has not ended, or 0."""
        try:
            note = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return 0
        found = note.get("upload_id") if isinstance(note, dict) else None
        return found if isinstance(found, int) and found > 0 else 0

    def write(self, upload_id: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = self.path.with_suffix(f".{os.getpid()}")
        partial.touch(mode=0o600)
        partial.write_text(json.dumps({**self.about, "upload_id": upload_id}), "utf-8")
        partial.replace(self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
