"""One cache of compiled statements for all SQLAlchemy engines of a test process.

SQLAlchemy keeps the cache in the engine, and each test has an engine of its own. So each test would
compile each statement again, which took a third of the time of the tests with a database.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Dialect, Engine, event


class _Compiled(dict[Any, Any]):
    """SQLAlchemy's key begins with the dialect, an object of the engine. Here it begins with the
    properties that the compiled text depends on."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_shared(key), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        super().__setitem__(_shared(key), compiled)


def _shared(key: tuple[Any, ...]) -> tuple[Any, ...]:
    dialect: Dialect = key[0]
    return (type(dialect), dialect.server_version_info, *key[1:])


def share_compiled_statements() -> None:
    """To be called once, before the first engine connects."""
    cache = _Compiled()

    @event.listens_for(Engine, "engine_connect")
    def _use(connection: Connection) -> None:
        connection.execution_options(compiled_cache=cache)
