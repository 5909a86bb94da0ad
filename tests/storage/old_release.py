"""A database of the release with schema 0001, for tests of its migration.

That release wrote the rows. They are in release_0001/, a file for each kind of database, because
ids and chains of the ledger differ. So none of its code is needed, and it computed every digest in
them.

There are three tenants (one is deleted), rates with intervals, fees, minimums, windows and a block,
an update and an import; CDRs RATED, UNRATED for two reasons and NOT_BILLABLE; a call priced late;
reversals of one CDR, of an upload, of an UNRATED CDR and of a late price; uploads with failures of
several kinds; tokens; the audit log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema import migrate

_FOLDER = Path(__file__).with_name("release_0001")
_REFERRED_TO = ("tenants", "uploads")


@dataclass(frozen=True)
class OldRelease:
    """The known facts of its database."""

    url: str
    root: str  # of the ledger, recorded at that time
    entries: int
    listed: list[dict[str, Any]]  # every CDR as ListCdrs gave it, in protobuf's JSON


def fill(url: str) -> OldRelease:
    """Make the empty database at ``url`` one of that release."""
    database = Database(url)
    kind = "sqlite" if database.is_sqlite else "postgresql"
    kept = json.loads((_FOLDER / f"{kind}.json").read_text())
    try:
        with database.write() as connection:
            upgrade_to(connection, "0001")
            _insert(connection, kept["tables"], kept["sequences"])
    finally:
        database.close()
    return OldRelease(url, kept["root"], kept["entries"], kept["listed"])


def upgrade_to(connection: Connection, revision: str) -> None:
    """Without triggers, which fit only the newest schema."""
    config = Config()
    folder = Path(migrate.__file__).with_name("migrations")
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _insert(connection: Connection, tables: dict[str, Any], sequences: dict[str, int]) -> None:
    names = sorted(tables, key=lambda name: name not in _REFERRED_TO)
    for name in reversed(names):
        connection.execute(text(f"DELETE FROM {name}"))
    for name in names:
        columns = [f'"{column}"' for column in tables[name]["columns"]]
        values = ", ".join(f":v{number}" for number in range(len(columns)))
        query = text(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({values})")
        for row in tables[name]["rows"]:
            parameters = {f"v{number}": _value(value) for number, value in enumerate(row)}
            connection.execute(query, parameters)
    for name, last_value in sequences.items():
        if last_value is not None:
            connection.execute(
                text("SELECT setval(:name, :last)"), {"name": name, "last": last_value}
            )


def _value(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
