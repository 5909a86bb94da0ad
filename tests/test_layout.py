"""The layout: a module's layer is its folder, and imports point to lower layers only.

Every import in every module counts, also those inside functions. docs/architecture/README.md shows
the folders and the arrows between them; the diagram must equal the imports.

SQLAlchemy belongs to service/storage, gRPC and the stubs to service/rpc, service/cli and the client
(proto/tollwire/client), which imports nothing of the service.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "ratingcore"
DIAGRAM = ROOT / "docs" / "architecture" / "README.md"
SERVICE = "tollwire.service"

# Each folder may import those before it, and of the other roots what stands in OUTSIDE.
SERVICE_LAYERS = (
    *("domain", "settings", "storage", "observability", "cache", "accounts"),
    *("rating", "record", "reports", "rpc", "process", "cli"),
)
CORE_LAYERS = ("base", "pricing", "index", "deck", "wire", "record")
# Imports that point down and are forbidden all the same.
FORBIDDEN = {
    ("rpc", "storage"),  # the servicers reach the database through the subjects
    ("cli", "domain"),  # the command uses only the wire
    *(("cli", layer) for layer in ("storage", "observability", "cache", "accounts")),
    *(("cli", layer) for layer in ("rating", "record", "reports", "rpc")),
}
# Other roots of the project: ratingcore, the stubs in tollwire.v1, the client.
CLIENT = "tollwire.client"
OUTSIDE = {
    "ratingcore": {"observability", "cache", "process", "rating", "record", "rpc"},
    "tollwire.v1": {"rpc", "cli", CLIENT},
    "tollwire.loopback": {"settings", CLIENT},
    CLIENT: {"cli"},
}
# What the client may import beside the standard library: installing it must cost little.
CLIENT_LIBRARIES = {"grpc", "google"}
# Modules of plain types, for folders that may import nothing else of their root.
PLAIN_TYPES = {"storage": "ratingcore.record.values"}
# Libraries that belong to some folders only.
BELONGS_TO = {
    "sqlalchemy": {"storage"},
    "alembic": {"storage"},
    "psycopg": {"storage"},
    "sqlite3": {"storage"},
    "grpc": {"rpc", "cli", CLIENT},
    "grpc_health": {"rpc", "cli"},
    "grpc_reflection": {"rpc"},
    "grpc_status": {"rpc"},
    "google": {"rpc", "cli", CLIENT},
    "click": {"cli"},
    "rich": {"cli"},
    "cryptography": {"settings", "record"},
    "opentelemetry": {"rpc"},
    "prometheus_client": {"observability"},
    "pydantic": {"settings"},
    "pydantic_settings": {"settings"},
}
# Where the databases may be distinguished. All other code calls methods of Dialect.
KNOWS_DATABASES = (f"{SERVICE}.storage.dialects.", f"{SERVICE}.storage.schema.")
NAMED_DATABASE = re.compile(r"\bdialect\.name\b|(?<!self)\.is_sqlite\b")
# What the rating core may import beside itself: of the standard library, and for Cython.
CORE_LIBRARIES = {"__future__", "collections", "dataclasses", "datetime", "decimal", "enum"}
CORE_LIBRARIES |= {"array", "fractions", "hashlib", "math", "typing"}
CYTHON_LIBRARIES = {"cpython", "cython", "libc", *CORE_LIBRARIES}


def folder_of(module: str) -> str | None:
    """The layer of a module: its folder in the service or in the core, "" for the root itself.

    The stubs are "tollwire.v1". None: the module is not of the project.
    """
    parts = module.removesuffix(".__init__").split(".")
    if parts[0] == "ratingcore":
        return f"ratingcore.{parts[1]}" if len(parts) > 1 else "ratingcore"
    if parts[:2] == ["tollwire", "service"]:
        return parts[2] if len(parts) > 2 else ""
    if parts[0] != "tollwire":
        return None
    found = ".".join(parts[:2])
    return found if found in OUTSIDE else "tollwire.v1"


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
            if base not in (SERVICE, "tollwire"):
                yield base
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def may_import(module: str, imported: str) -> bool:
    """Whether the layout allows the import."""
    folder, target = folder_of(module), folder_of(imported)
    library = imported.partition(".")[0]
    if target is None:
        if module.startswith("ratingcore"):
            return library in CORE_LIBRARIES
        if folder == CLIENT:
            return library in CLIENT_LIBRARIES | sys.stdlib_module_names
        return library != "service" and folder in BELONGS_TO.get(library, {folder})
    if module.startswith("ratingcore"):
        if not imported.startswith("ratingcore"):
            return False
        return _core_rank(target) <= _core_rank(folder)
    if target == folder or (target == "" and folder not in OUTSIDE):
        return True
    for root, folders in OUTSIDE.items():
        if target.startswith(root):
            return folder in folders or f"{imported}.".startswith(f"{PLAIN_TYPES.get(folder)}.")
    if folder in OUTSIDE:
        return False
    assert folder in SERVICE_LAYERS, f"{module}: the folder is not in SERVICE_LAYERS"
    lower = SERVICE_LAYERS[: SERVICE_LAYERS.index(folder)]
    return target in lower and (folder, target) not in FORBIDDEN


def _core_rank(folder: str | None) -> int:
    name = (folder or "").removeprefix("ratingcore.")
    # The package itself exports names of all folders.
    return CORE_LAYERS.index(name) if name in CORE_LAYERS else len(CORE_LAYERS)


@cache
def modules() -> dict[str, str]:
    """The project's own modules by name, with their sources."""
    found = {}
    for path in [*ROOT.glob("service/**/*.py"), *ROOT.glob("ratingcore/**/*.py")]:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name if path.is_relative_to(CORE) else f"tollwire.{name}"] = path.read_text("utf-8")
    for path in [*ROOT.glob("proto/tollwire/client/*.py"), ROOT / "proto/tollwire/loopback.py"]:
        name = ".".join(path.relative_to(ROOT / "proto").with_suffix("").parts)
        found[name] = path.read_text("utf-8")
    return found


@pytest.mark.parametrize("module", sorted(modules()))
def test_every_arrow_points_down(module: str) -> None:
    wrong = [name for name in imports(module, modules()[module]) if not may_import(module, name)]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        (f"{SERVICE}.domain.model", f"from {SERVICE}.settings import config"),
        (f"{SERVICE}.storage.rates", f"from {SERVICE}.cache.decks import Decks"),
        (f"{SERVICE}.storage.rates", "import ratingcore"),
        (f"{SERVICE}.storage.rates", "from ratingcore.record import records"),
        (f"{SERVICE}.rating.rates", f"from {SERVICE}.rpc import server"),
        (f"{SERVICE}.rating.rates", f"from {SERVICE}.process import app"),
        (f"{SERVICE}.rating.rates", f"from {SERVICE}.record.cdrs import Cdrs"),
        (f"{SERVICE}.rating.rates", "from tollwire.v1 import types_pb2"),
        (f"{SERVICE}.rating.rates", "import grpc"),
        (f"{SERVICE}.rating.rates", "def late():\n    from sqlalchemy import select"),
        (f"{SERVICE}.rating.rates", "from service.rating import calls"),
        (f"{SERVICE}.rpc.server", f"from {SERVICE}.storage.engine import Database"),
        (f"{SERVICE}.rpc.server", "from ..storage import engine"),
        (f"{SERVICE}.rpc.server", "import sqlalchemy.exc"),
        (f"{SERVICE}.rpc.server", "import prometheus_client"),
        (f"{SERVICE}.observability.metrics.serving", f"from {SERVICE}.rpc import server"),
        (f"{SERVICE}.rpc.server", f"from {SERVICE}.cli import main"),
        (f"{SERVICE}.cli.main", f"from {SERVICE}.rating.rates import Rates"),
        (f"{SERVICE}.cli.main", f"from {SERVICE}.storage.schema import migrate"),
        (f"{SERVICE}.process.app", f"from {SERVICE}.cli.main import main"),
        (f"{SERVICE}.process.app", "import grpc"),
        (f"{SERVICE}.rpc.server", "from tollwire.client import Client"),
        (f"{CLIENT}.client", f"from {SERVICE}.domain import model"),
        (f"{CLIENT}.client", "from tollwire.service import cli"),
        (f"{CLIENT}.client", "import ratingcore"),
        (f"{CLIENT}.client", "import grpc_status"),
        ("tollwire.loopback", "import grpc"),
        ("ratingcore.pricing.values", f"from {SERVICE}.domain import model"),
        ("ratingcore.pricing.values", "from ..deck import explain"),
        ("ratingcore.pricing.values", "import numpy"),
    ],
)
def test_an_arrow_that_points_up_is_detected(module: str, statement: str) -> None:
    assert not all(may_import(module, name) for name in imports(module, statement))


def test_only_the_dialects_distinguish_databases() -> None:
    found = {name for name, source in modules().items() if NAMED_DATABASE.search(source)}
    assert {name for name in found if not name.startswith(KNOWS_DATABASES)} == set()
    # The migrations do, so the pattern matches.
    assert found


def test_the_dialects_import_no_queries() -> None:
    may = {f"{SERVICE}.storage.{name}" for name in ("cdr_rows", "limits", "failures", "refusals")}
    for module, source in modules().items():
        if module.startswith(KNOWS_DATABASES[0]):
            imported = {name for name in imports(module, source) if name in modules()}
            queries = {
                name
                for name in imported - may
                if name.startswith(f"{SERVICE}.storage.") and not name.startswith(KNOWS_DATABASES)
            }
            assert queries == set(), module


def test_no_module_imports_itself_in_a_circle() -> None:
    names = modules()
    graph = {
        module: {i for i in imports(module, source) if i in names and i != module}
        for module, source in names.items()
        if module.startswith((f"{SERVICE}.", f"{CLIENT}."))
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


def arrows() -> set[tuple[str, str]]:
    """The imports between the folders of the service and of the client, and to the other roots."""
    found = set()
    for module, source in modules().items():
        folder = folder_of(module)
        if not module.startswith((f"{SERVICE}.", f"{CLIENT}.")) or not folder:
            continue
        for imported in imports(module, source):
            target = folder_of(imported)
            if target and target != folder:
                found.add((folder, "ratingcore" if target.startswith("ratingcore") else target))
    return found


def core_arrows() -> set[tuple[str, str]]:
    """The cimports and imports between the folders of the core."""
    found = set()
    for path in core_sources():
        for target, _ in core_imports(path):
            if target != path.parent.name:
                found.add((path.parent.name, target))
    return found


def test_the_diagrams_show_the_imports() -> None:
    diagrams = re.findall(r"```mermaid\n(.*?)```", DIAGRAM.read_text("utf-8"), re.DOTALL)
    shown = [set(re.findall(r"^ *([\w.]+) --> ([\w.]+)$", text, re.MULTILINE)) for text in diagrams]
    assert shown[:2] == [arrows(), core_arrows()]


# Cython has imports of its own, which Python's parser does not read.
CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([.\w]+)\s+c?import\b|c?import\s+([.\w]+))")


def core_sources() -> list[Path]:
    return sorted(ROOT.glob("ratingcore/*/*.p[xy][dx]"))


def core_imports(path: Path) -> Iterator[tuple[str, str]]:
    """Folder and name of each import of another module of the core; "" for other packages."""
    for line in path.read_text("utf-8").splitlines():
        match = CYTHON_IMPORT.match(line)
        if match is None:
            continue
        name = match[1] or match[2]
        if name.startswith(".."):
            yield name.lstrip(".").partition(".")[0], name
        elif name.startswith("."):
            yield path.parent.name, name
        elif name.partition(".")[0] not in CYTHON_LIBRARIES:
            yield "", name


@pytest.mark.parametrize("path", core_sources(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_compiled_core_imports_lower_folders_only(path: Path) -> None:
    lower = CORE_LAYERS[: CORE_LAYERS.index(path.parent.name) + 1]
    assert [name for folder, name in core_imports(path) if folder not in lower] == []


def test_all_modules_were_found() -> None:
    assert len(core_sources()) > 50
    assert len(modules()) > 150
    assert {folder_of(m) for m in modules() if m.startswith(SERVICE)} == {"", *SERVICE_LAYERS}
