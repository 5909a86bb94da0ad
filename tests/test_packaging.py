"""The wheel and the sdist of a checkout, and that others can use them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = "tollwire/service/storage/schema/migrations/versions"
PROTOS = (
    *("types", "rating_service", "cdr_service", "tenant_service", "access_service"),
    "error_reason",
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
BUILD_SECONDS = 600


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command outside this checkout; return its output, which is also shown if it fails."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git tracks or would add, without generated files."""
    copy = tmp_path_factory.mktemp("checkout")
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    assert not list(copy.rglob("*_pb2.py"))
    assert not list(copy.rglob("*.so"))
    return copy


@pytest.fixture(scope="module")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist made from the checkout, and the wheel made from that sdist.

    The core was compiled here from the same sources already (a test checks that the sdist has them
    all), and is not compiled again: that would take a minute of every run.
    """
    folder = tmp_path_factory.mktemp("built")
    build = (sys.executable, "-m", "build", "--no-isolation", "-o", folder)
    is_release = _core_state()["mode"] == "release"
    run(*build, "--sdist", checkout, cwd=folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    if is_release:
        _hand_over_the_core(unpacked)
    run(*build, "--wheel", unpacked, cwd=folder, CFLAGS="-O0")
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def _core_state() -> dict[str, Any]:
    """The sources from which the core of this checkout was compiled."""
    state: dict[str, Any] = json.loads((ROOT / "build" / "core-inplace.json").read_text("utf-8"))
    return state


def _hand_over_the_core(unpacked: Path) -> None:
    """The build of the core in that folder, as far as it is done here."""
    (unpacked / "build").mkdir()
    shutil.copy2(ROOT / "build" / "core-inplace.json", unpacked / "build" / "core.json")
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    library = f"lib.{sysconfig.get_platform()}-{sys.implementation.name}-{version}"
    for source in ROOT.glob("ratingcore/**/*.pyx"):
        (module,) = source.parent.glob(f"{source.stem}.*.so")
        compiled = unpacked / "build" / library / source.parent.relative_to(ROOT)
        compiled.mkdir(parents=True, exist_ok=True)
        shutil.copy2(module, compiled)


@pytest.mark.timeout(BUILD_SECONDS)
def test_the_wheel_contains_all_it_needs(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    for proto in PROTOS:
        for suffix in (".proto", "_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"):
            assert f"tollwire/v1/{proto}{suffix}" in names
    assert "tollwire/v1/service_config.json" in names
    assert "tollwire/v1/descriptors.binpb" in names
    for package in ("tollwire", "ratingcore"):
        assert f"{package}/py.typed" in names
    # Each module of the service; each of the core, compiled, with its type hints where it has any.
    for path in ROOT.glob("proto/tollwire/**/*.py"):
        assert path.relative_to(ROOT / "proto").as_posix() in names or "service" in path.parts
    assert "tollwire/client/async_rpcs.py" in names
    service = {p.relative_to(ROOT).as_posix() for p in ROOT.glob("service/**/*.py")}
    service |= {p.relative_to(ROOT).as_posix() for p in ROOT.glob("service/**/*.mako")}
    expected = {f"tollwire/{name}" for name in service}
    expected |= {p.relative_to(ROOT).as_posix() for p in ROOT.glob("ratingcore/**/*.py*")}
    expected -= {name for name in expected if name.endswith((".pyx", ".pyc"))}
    assert expected <= names
    assert any(name.startswith(f"{VERSIONS}/0001") for name in names)
    compiled = {name.split(".")[0] for name in names if name.endswith(".so")}
    assert compiled == {
        p.relative_to(ROOT).with_suffix("").as_posix() for p in ROOT.glob("ratingcore/**/*.pyx")
    }


@pytest.mark.timeout(BUILD_SECONDS)
def test_the_wheel_contains_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = wheel.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"tollwire", "ratingcore", f"tollwire-{VERSION}.dist-info"}
    assert [name for name in names if name.endswith((".c", ".pyx", ".pxd", ".pyc", ".db"))] == []


@pytest.mark.timeout(BUILD_SECONDS)
def test_the_sdist_contains_sources_and_nothing_generated(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    expected = {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "setup.py", "pyproject.toml"}
    expected |= {"proto/tollwire/v1/types.proto", "requirements/dev.txt", "tests/test_packaging.py"}
    listed = run("git", "ls-files", "ratingcore", "proto", cwd=ROOT).split()
    expected |= {name for name in listed if (ROOT / name).is_file()}
    assert expected <= names
    made = re.compile(
        r"_pb2|/(async_)?rpcs\.py$|\.binpb$|\.so$|\.pyc$|\.db$|^build/|^ratingcore/.*\.c$"
    )
    assert [name for name in names if made.search(name)] == []


@pytest.mark.timeout(BUILD_SECONDS)
def test_an_installed_wheel_serves_outside_the_checkout(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    # The dependencies come from this environment; the project itself must come from the wheel.
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"),
        built[1],
        cwd=tmp_path,
    )
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    ours = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    dependencies = tmp_path / "dependencies"
    dependencies.mkdir()
    for entry in ours.iterdir():
        if "tollwire" not in entry.name:
            (dependencies / entry.name).symlink_to(entry)
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    script = (
        "import tollwire.service as service, ratingcore, tollwire.v1.cdr_service_pb2 as stubs;"
        "print(service.__file__, ratingcore.__file__, stubs.__file__)"
    )
    for found in run(python, "-c", script, cwd=tmp_path).split():
        assert found.startswith(str(site))
    tollwire = tmp_path / "venv" / "bin" / "tollwire"
    assert run(tollwire, "--version", cwd=tmp_path).split()[-1] == VERSION
    migrated = run(tollwire, "migrate", "--database", "sqlite:///x.db", cwd=tmp_path)
    assert "no schema before" in migrated
    server = subprocess.Popen(
        [tollwire, "serve", "--listen", "127.0.0.1:0", "--database", "sqlite:///x.db"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        address = re.search(r"127\.0\.0\.1:\d+", line)
        assert address is not None, line
        listed = run(tollwire, "tenants", "list", "--server", address[0], cwd=tmp_path)
        assert listed == "tollwire: no tenants\n"
    finally:
        server.terminate()
        server.stdout.close()  # type: ignore[union-attr]
        assert server.wait(30) == 0


@pytest.mark.timeout(BUILD_SECONDS)
def test_a_build_compares_contents_and_not_times(checkout: Path, tmp_path: Path) -> None:
    """A source that was saved without a change compiles nothing; a change compiles what uses it."""
    if _core_state()["mode"] != "release":
        pytest.skip("the core is not compiled in release mode")
    shutil.copytree(checkout, tmp_path, dirs_exist_ok=True, symlinks=True)
    (tmp_path / "build").mkdir(exist_ok=True)
    shutil.copy2(ROOT / "build" / "core-inplace.json", tmp_path / "build")
    for module in ROOT.glob("ratingcore/**/*.so"):
        shutil.copy2(module, tmp_path / module.relative_to(ROOT))

    def compiled() -> set[str]:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("ratingcore/**/*.so")}
        build = (sys.executable, "setup.py", "-q", "build_ext", "--inplace")
        run(*build, cwd=tmp_path, CFLAGS="-O0")
        after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("ratingcore/**/*.so")}
        assert after.keys() == before.keys()
        return {path.name.partition(".")[0] for path in after if after[path] != before[path]}

    for source in tmp_path.glob("ratingcore/**/*.p[xy]*"):
        source.touch()
    assert compiled() == set()
    with (tmp_path / "ratingcore/wire/tally.pxd").open("a", encoding="utf-8") as file:
        file.write("# A comment.\n")
    assert compiled() == {"tally", "record_rating", "rate_calls"}
    assert compiled() == set()


def test_the_stubs_run_with_the_least_versions_that_users_may_have() -> None:
    """Generated code refuses a grpcio or protobuf older than the compiler that made it."""
    import tollwire.v1.types_pb2_grpc as grpc_stubs

    least = {
        requirement.name: min(
            Version(s.version) for s in requirement.specifier if s.operator == ">="
        )
        for requirement in map(Requirement, PROJECT["project"]["dependencies"])
    }
    assert Version(grpc_stubs.GRPC_GENERATED_VERSION) <= least["grpcio"]
    generated = Path(grpc_stubs.__file__).with_name("types_pb2.py").read_text("utf-8")
    made_with = re.search(r"^# Protobuf Python Version: (.+)$", generated, re.MULTILINE)
    assert made_with is not None
    assert Version(made_with[1]) <= least["protobuf"]


def test_development_has_the_build_requirements_of_users() -> None:
    pinned = {
        canonicalize_name(requirement.name): requirement.specifier
        for line in (ROOT / "requirements" / "constraints.txt").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
        for requirement in [Requirement(line)]
    }
    assert all(re.fullmatch(r"==\S+", str(s)) for s in pinned.values())
    wanted = PROJECT["build-system"]["requires"] + PROJECT["project"]["dependencies"]
    for requirement in map(Requirement, wanted):
        version = str(pinned[canonicalize_name(requirement.name)]).removeprefix("==")
        assert requirement.specifier.contains(version), requirement


VERSION = PROJECT["project"]["version"]
