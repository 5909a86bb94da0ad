"""The arrows of the layout: who may import whom. Every import in every module is looked at, also
those inside functions.

    rpc, cli -> subjects -> storage, ratingcore -> model, record_model, errors, money, config

SQLAlchemy belongs to service/storage, gRPC and the stubs to service/rpc and service/cli.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

GROUND = {
    f"service.{name}"
    for name in (
        *("model", "record_model", "errors", "money", "request", "signals"),
        *("logs", "masking", "request_ids"),
        *("config", "config_sources", "loopback", "pem_files", "certificates"),
    )
}

# What each part may import of the project; itself always.
MAY_IMPORT = {
    "ground": set(),
    "ratingcore": set(),
    "storage": {"ground"},
    "subjects": {"ground", "storage", "ratingcore"},
    # The bulk path hands bytes to the core and gets bytes back.
    "rpc": {"ground", "subjects", "ratingcore", "stubs"},
    # What operators see: what the subjects have counted, and what the root hands in.
    "metrics": {"ground", "subjects"},
    # The command starts a server through the composition root; otherwise it is a client.
    "cli": {"ground", "stubs", "app"},
    "app": {"ground", "subjects", "storage", "rpc", "metrics"},
}
# Libraries that belong to some parts only.
BELONGS_TO = {
    "sqlalchemy": {"storage"},
    "alembic": {"storage"},
    "psycopg": {"storage"},
    "sqlite3": {"storage"},
    "grpc": {"rpc", "cli"},
    "grpc_health": {"rpc", "cli"},
    "grpc_reflection": {"rpc"},
    "grpc_status": {"rpc", "cli"},
    "google": {"rpc", "cli"},
    "click": {"cli"},
    "rich": {"cli"},
    "cryptography": {"ground"},
    "opentelemetry": {"rpc"},
    "prometheus_client": {"metrics"},
    "pydantic": {"ground"},
    "pydantic_settings": {"ground"},
}


def part_of(module: str) -> str | None:
    """The part of the project that a module is of; None for what is not of the project."""
    head, _, rest = module.partition(".")
    if head == "tollwire":
        return "stubs"
    if head == "ratingcore":
        return "ratingcore"
    if head != "service":
        return None
    for part in ("storage", "rpc", "cli", "app", "metrics"):
        if rest == part or rest.startswith(f"{part}."):
            return part
    if rest in ("upkeep", "worker"):
        return "app"
    return (
        "ground" if any(module == g or module.startswith(f"{g}.") for g in GROUND) else "subjects"
    )


def imports(module: str, source: str) -> Iterator[str]:
    """What a module imports, with relative imports made absolute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *filter(None, [base])])
            # What is imported may be a module of the package, or a name in the module.
            if base != "service":
                yield base
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def wrong_arrows(module: str, source: str) -> list[str]:
    """Every import of the module that the layout forbids."""
    part = part_of(module)
    assert part in MAY_IMPORT, module
    wrong = []
    for imported in imports(module, source):
        target = part_of(imported)
        library = imported.partition(".")[0]
        if (
            (target is not None and target != part and target not in MAY_IMPORT[part])
            or part not in BELONGS_TO.get(library, {part})
            or (part == "ratingcore" and target is None and library not in STANDARD)
        ):
            wrong.append(f"{module} imports {imported}")
    return wrong


STANDARD = {"__future__", "collections", "dataclasses", "datetime", "decimal", "enum", "fractions"}
STANDARD |= {"array", "hashlib", "math", "typing"}


@cache
def modules() -> dict[str, str]:
    """The project's own modules by name, with their sources."""
    found = {}
    for path in [*ROOT.glob("service/**/*.py"), *ROOT.glob("ratingcore/**/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts)] = path.read_text("utf-8")
    return found


@pytest.mark.parametrize("module", sorted(modules()))
def test_every_arrow_points_down(module: str) -> None:
    assert wrong_arrows(module, modules()[module]) == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("service.model", "import service.money"),
        ("service.storage.rates", "from service.decks import Decks"),
        ("service.storage.rates", "import ratingcore"),
        ("service.rates", "from service.rpc import server"),
        ("service.rates", "from service import app"),
        ("service.rates", "from tollwire.v1 import types_pb2"),
        ("service.rates", "import grpc"),
        ("service.rates", "def late():\n    from sqlalchemy import select"),
        ("service.rpc.server", "from service.storage.engine import Database"),
        ("service.rpc.server", "from ..storage import engine"),
        ("service.rpc.server", "import sqlalchemy.exc"),
        ("service.rpc.server", "import prometheus_client"),
        ("service.metrics.shown", "from service.rpc import server"),
        ("service.rpc.server", "from service.cli import main"),
        ("service.cli.main", "from service.rates import Rates"),
        ("service.cli.main", "from service.storage import migrate"),
        ("service.app", "from service.cli.main import main"),
        ("service.app", "import grpc"),
        ("ratingcore.pricing.values", "from service import model"),
        ("ratingcore.pricing.values", "import numpy"),
    ],
)
def test_an_arrow_that_points_up_is_seen(module: str, statement: str) -> None:
    wrong = wrong_arrows(module, statement)
    # Between the modules of the ground all is allowed; that one is here to say so.
    assert bool(wrong) is (module != "service.model")


def test_no_module_imports_itself_in_a_circle() -> None:
    names = modules()
    graph = {
        module: {i for i in imports(module, source) if i in names and i != module}
        for module, source in names.items()
        if module.startswith("service.")
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


# Cython has imports of its own, which Python's parser does not read.
CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([.\w]+)\s+c?import\b|c?import\s+([.\w]+))")
CYTHON_MAY_IMPORT = {"cpython", "cython", "libc", *STANDARD}


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("ratingcore/**/*.p[xy][dx]")), ids=lambda path: path.name
)
def test_the_compiled_core_knows_only_the_standard_library(path: Path) -> None:
    imported = [
        match[1] or match[2]
        for match in map(CYTHON_IMPORT.match, path.read_text("utf-8").splitlines())
        if match is not None
    ]
    foreign = [
        name
        for name in imported
        if not name.startswith(".")
        and name.partition(".")[0] not in CYTHON_MAY_IMPORT | {"ratingcore"}
    ]
    assert foreign == []


def test_all_of_the_core_was_found() -> None:
    assert len(list(ROOT.glob("ratingcore/**/*.p[xy][dx]"))) > 5
    assert len(modules()) > 40
