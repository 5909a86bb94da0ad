"""A power cut at any moment while SQLite writes: acknowledged transactions survive, and none is
half there.

All writes of a process are recorded in their order (recorded_writes.c). The test then constructs
the disk after a cut: synced data is on it; of all later writes, any sectors are on it or not.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.serving import REPOSITORY

TRANSACTIONS = 60
CUTS = 100
_SECTOR_BYTES = 512
_ENTRY = struct.Struct("<qqq16s")
_CUT, _SYNCED, _REMOVED = 2, 3, 4

# Two rows a transaction, and a note of each that was acknowledged. The log is short, so that it is
# copied into the file and begun again many times.
_WRITER = """
import os, random, sys
from sqlalchemy import event, text
from tollwire.service.storage.engine import Database

folder, transactions, level = sys.argv[1], int(sys.argv[2]), sys.argv[3]
acknowledged = os.open(folder + "/acknowledged", os.O_WRONLY | os.O_CREAT)
database = Database(f"sqlite:///{folder}/t.db")

@event.listens_for(database.engine, "connect")
def set_up(driver, record):
    driver.execute("PRAGMA wal_autocheckpoint = 20")
    if level:
        driver.execute(f"PRAGMA synchronous = {level}")

draw = random.Random(1)
with database.write() as connection:
    connection.execute(text("CREATE TABLE kept (id INTEGER PRIMARY KEY, words TEXT)"))
for number in range(transactions):
    with database.write() as connection:
        for row in (2 * number, 2 * number + 1):
            words = {"row": row, "words": "x" * draw.randrange(1, 9_000)}
            connection.execute(text("INSERT INTO kept VALUES (:row, :words)"), words)
    os.pwrite(acknowledged, bytes(1), number)
os._exit(0)  # as it is, without the order that a close makes
"""


@dataclass
class Entry:
    kind: int
    file: str
    offset: int
    data: bytes


@dataclass
class Disk:
    """``kept``: the synced content; ``loose``: the later writes to each file."""

    kept: dict[str, bytearray] = field(default_factory=dict)
    loose: dict[str, list[Entry]] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        if entry.kind == _SYNCED:
            for one in self.loose.pop(entry.file, []):
                _apply(self.kept.setdefault(entry.file, bytearray()), one)
        elif entry.kind == _REMOVED:  # SQLite syncs the folder if necessary
            self.kept.pop(entry.file, None)
            self.loose.pop(entry.file, None)
        else:
            self.loose.setdefault(entry.file, []).append(entry)

    def cut(self, folder: Path, draw: random.Random) -> None:
        """The content after the power returns."""
        share = draw.choice((0.0, 0.5, 0.95, 1.0))
        for name in self.kept.keys() | self.loose.keys():
            content = bytearray(self.kept.get(name, b""))
            for entry in self.loose.get(name, []):
                for sector in _sectors(entry):
                    if draw.random() < share:
                        _apply(content, sector)
            (folder / name).write_bytes(content)


def _sectors(entry: Entry) -> Iterator[Entry]:
    if entry.kind == _CUT:
        yield entry
    for at in range(0, len(entry.data), _SECTOR_BYTES):
        data = entry.data[at : at + _SECTOR_BYTES]
        yield Entry(entry.kind, entry.file, entry.offset + at, data)


def _apply(content: bytearray, entry: Entry) -> None:
    if entry.kind == _CUT:
        del content[entry.offset :]
    end = entry.offset + len(entry.data)
    content.extend(bytes(max(0, end - len(content))))
    content[entry.offset : end] = entry.data


def _recorded(folder: Path, level: str) -> list[Entry]:
    """The writes of a process with this level of durability."""
    library, log = folder / "recorded_writes.so", folder / "log"
    source = Path(__file__).with_name("recorded_writes.c")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", source, "-o", library], check=True
    )
    files = folder / "files"
    files.mkdir()
    recording = {"LD_PRELOAD": library, "RECORDED_FOLDER": files, "RECORDED_LOG": log}
    subprocess.run(
        [sys.executable, "-c", _WRITER, str(files), str(TRANSACTIONS), level],
        env=os.environ | {name: str(value) for name, value in recording.items()},
        cwd=REPOSITORY,
        check=True,
    )
    content, at = log.read_bytes(), 0
    entries = []
    while at < len(content):
        kind, offset, size, name = _ENTRY.unpack_from(content, at)
        at += _ENTRY.size
        entries.append(Entry(kind, name.rstrip(b"\0").decode(), offset, content[at : at + size]))
        at += size
    return entries


def _lost_and_torn(entries: list[Entry], folder: Path) -> tuple[int, int]:
    """The number of CUTS after which something acknowledged is missing, and the number after which
    a transaction is half there."""
    draw = random.Random("cuts")
    moments = set(draw.sample(range(len(entries)), CUTS))
    disk = Disk()
    acknowledged = lost = torn = 0
    for number, entry in enumerate(entries):
        if entry.file == "acknowledged":
            acknowledged += 1
        elif entry.file != "t.db-shm":  # its content does not matter after a cut
            disk.take(entry)
        if number in moments:
            found = folder / "found"
            found.mkdir()
            disk.cut(found, draw)
            rows = _rows(found / "t.db")
            torn += rows is None or len(rows) % 2 == 1 or rows != list(range(len(rows)))
            lost += len(rows or []) < 2 * acknowledged
            shutil.rmtree(found)
    assert acknowledged == TRANSACTIONS
    return lost, torn


def _rows(path: Path) -> list[int] | None:
    """None if the file is damaged."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            if database.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                return None
            if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return []
            return [row for (row,) in database.execute("SELECT id FROM kept ORDER BY id")]
    except sqlite3.DatabaseError:
        return None


def test_acknowledged_transactions_survive_a_power_cut(tmp_path: Path) -> None:
    assert _lost_and_torn(_recorded(tmp_path, ""), tmp_path) == (0, 0)


@pytest.mark.parametrize(("level", "tears"), [("NORMAL", False), ("OFF", True)])
def test_less_durable_settings_are_detected(tmp_path: Path, level: str, tears: bool) -> None:
    """It shows that the cuts would find a fault."""
    lost, torn = _lost_and_torn(_recorded(tmp_path, level), tmp_path)
    assert lost > 0
    assert (torn > 0) == tears
