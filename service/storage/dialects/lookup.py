"""Finds the dialect of a connection or of a URL."""

from __future__ import annotations

from sqlalchemy import Connection

from tollwire.service.storage.dialects.base import Dialect
from tollwire.service.storage.dialects.postgresql import PostgreSQL
from tollwire.service.storage.dialects.sqlite import SQLite

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (SQLite(), PostgreSQL())}


def dialect_of(connection: Connection) -> Dialect:
    return DIALECTS[connection.dialect.name]
