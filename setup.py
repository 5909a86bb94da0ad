"""The build: compiles the protos and the rating core, and says which files the wheel holds.

Everything that can be said without code is in pyproject.toml. Three switches, read from the
environment, change how the core is compiled:

TOLLWIRE_DEBUG=1                        bounds and wraparound checks on, -O1 -g
TOLLWIRE_SANITIZE=address,undefined     the compiler's sanitizers, with TOLLWIRE_DEBUG's flags
TOLLWIRE_COVERAGE=1                     each branch reports itself to a fuzzer (tests/fuzz), without
                                        which such a core cannot be loaded
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

PROTO_ROOT = Path("proto")
# The protos with their comments, which the generated modules do not have.
DESCRIPTORS = Path("tollwire/v1/descriptors.binpb")
# The client's methods, generated from the descriptors.
CLIENT = Path("tollwire/client")
CLIENT_GENERATOR = PROTO_ROOT / "generate_client.py"
CORE = Path("ratingcore")
SANITIZERS = os.environ.get("TOLLWIRE_SANITIZE", "")
DEBUG = os.environ.get("TOLLWIRE_DEBUG", "") not in ("", "0") or bool(SANITIZERS)
COVERAGE = os.environ.get("TOLLWIRE_COVERAGE", "") not in ("", "0")
MODE = f"debug {SANITIZERS}".strip() if DEBUG else "release"
MODE += " coverage" if COVERAGE else ""
# For Cython.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "initializedcheck": DEBUG,
    "embedsignature": True,
}


def protobuf_plugin(name: str) -> str:
    """Path of a protoc plugin: of the build's own environment first, which is first on PATH."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    found = shutil.which(name, path=path)
    if found is None:
        raise SystemExit(f"{name} is not installed: pip install mypy-protobuf")
    return found


def compile_protos(into: Path) -> None:
    """Write the Python modules and their type hints for every .proto file under ``into``."""
    import grpc_tools

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    protos = sorted(str(path) for path in PROTO_ROOT.rglob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO_ROOT}", f"-I{well_known}"]
    for plugin in ("protoc-gen-mypy", "protoc-gen-mypy_grpc"):
        command.append(f"--plugin={plugin}={protobuf_plugin(plugin)}")
    for output in ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out"):
        command.append(f"--{output}={'quiet:' if 'mypy' in output else ''}{into}")
    described = into / DESCRIPTORS
    described.parent.mkdir(parents=True, exist_ok=True)
    command += ["--include_source_info", f"--descriptor_set_out={described}"]
    subprocess.run([*command, *protos], check=True)
    keep_comments(described)
    subprocess.run(
        [sys.executable, str(CLIENT_GENERATOR), str(described), str(into / CLIENT)], check=True
    )


def keep_comments(described: Path) -> None:
    """Leave, of what protoc says about the sources, only the comments, which server reflection
    shows: where each name stands is five times as long."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    files = FileDescriptorSet.FromString(described.read_bytes())
    for file in files.file:
        commented = [
            place
            for place in file.source_code_info.location
            if place.leading_comments or place.trailing_comments
        ]
        for place in commented:
            place.ClearField("leading_detached_comments")
        file.source_code_info.ClearField("location")
        file.source_code_info.location.extend(commented)
    described.write_bytes(files.SerializeToString(deterministic=True))


class BuildProtos(Command):
    """Compiles proto/ in place. A file that would not change is left alone, with its time stamp;
    one whose .proto is gone is removed, so that no wheel picks it up."""

    description = "compile the protos into Python modules and type hints, in place"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = []
    editable_mode = False
    build_lib: str | None = None

    def initialize_options(self) -> None:
        pass

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            compile_protos(Path(scratch))
            made = {p.relative_to(scratch): p for p in Path(scratch).rglob("*_pb2*")}
            made[DESCRIPTORS] = Path(scratch) / DESCRIPTORS
            made |= {p.relative_to(scratch): p for p in (Path(scratch) / CLIENT).iterdir()}
            for old in PROTO_ROOT.glob("tollwire/v*/*_pb2*.py*"):
                if old.relative_to(PROTO_ROOT) not in made:
                    old.unlink()
            for relative, source in made.items():
                target = PROTO_ROOT / relative
                if not target.exists() or target.read_bytes() != source.read_bytes():
                    # Two steps, so that no process imports half a module.
                    partial = target.with_name(f".{target.name}.{os.getpid()}")
                    shutil.copyfile(source, partial)
                    partial.replace(target)

    # The methods that setuptools requires of a build step. The modules count as sources of
    # build_py, which runs after this step and finds them.
    def get_source_files(self) -> list[str]:
        return [str(CLIENT_GENERATOR), *map(str, PROTO_ROOT.rglob("*.proto"))]

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class Build(build):
    """The usual build, with the protos first: build_py must find what they become."""

    sub_commands: ClassVar = [("build_protos", None), *build.sub_commands]


class BuildCore(build_ext):
    """Compiles the .pyx files of ratingcore whose sources or mode (release, debug, sanitizers) have
    changed since they were compiled.

    It compares the contents of files, not their times: a file that was saved without a change, or
    checked out again, compiles nothing.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()
        self.mode = MODE.replace(" ", "-").replace(",", "-")
        self.build_temp = str(Path(self.build_temp) / self.mode)
        self.force = True  # build_extension decides; the times of files do not count
        self.lock = threading.Lock()

    def run(self) -> None:
        self.state_path = Path("build") / ("core-inplace.json" if self.inplace else "core.json")
        # The digest of the sources that each module was compiled from.
        self.compiled: dict[str, str] = {}
        if self.state_path.exists():
            state = json.loads(self.state_path.read_text("utf-8"))
            if state["mode"] == MODE:
                self.compiled = state["modules"]
        if self.inplace:
            remove_stale_modules()
            # setuptools would build in another folder, and again if that is missing.
            super(build_ext, self).run()
        else:
            super().run()

    def build_extension(self, extension: Extension) -> None:
        """Compile one module. Threads call it, and Cython is not made for them: hence the lock."""
        from Cython.Build import cythonize

        with self.lock:
            digest = digest_of_sources(extension)
            is_built = Path(self.get_ext_fullpath(extension.name)).exists()
            if is_built and self.compiled.get(extension.name) == digest:
                return
            (in_c,) = cythonize(
                [extension],
                force=True,
                build_dir=str(Path("build") / "cython" / self.mode),
                compiler_directives=DIRECTIVES,
            )
        # setuptools has set attributes of its own, which the copy that Cython made does not have.
        translated = copy.copy(extension)
        translated.sources = in_c.sources
        super().build_extension(translated)
        with self.lock:
            self.compiled[extension.name] = digest
            state = {"mode": MODE, "modules": self.compiled}
            self.state_path.parent.mkdir(exist_ok=True)
            self.state_path.write_text(json.dumps(state, indent=1, sort_keys=True), "utf-8")


def digest_of_sources(extension: Extension) -> str:
    """A digest of all that a module is compiled from but for the mode: its .pyx, the files that it
    includes, the compilers."""
    from Cython import __version__ as cython_version
    from Cython.Build.Dependencies import create_dependency_tree

    tree = create_dependency_tree(quiet=True)
    paths = {os.path.relpath(path) for path in tree.all_dependencies(extension.sources[0])}
    digest = hashlib.sha256()
    digest.update(f"{cython_version} {sys.version}".encode())
    for path in sorted({*paths, *extension.depends}):
        # The declarations that Cython brings along belong to its version.
        if Path(path).is_relative_to(CORE):
            digest.update(f"\n{path}\n".encode() + Path(path).read_bytes())
    return digest.hexdigest()


def remove_stale_modules() -> None:
    """Remove compiled modules of the core whose source was moved or deleted."""
    for module in CORE.rglob("*.so"):
        if not (module.parent / f"{module.name.partition('.')[0]}.pyx").exists():
            module.unlink()


def core_extensions() -> list[Extension]:
    """One extension for each .pyx file of the core."""
    compile_args = ["-O1", "-g", "-fno-omit-frame-pointer"] if DEBUG else []
    if not DEBUG:
        compile_args.append("-g0")  # Python's own flags ask for it: a third of the compiler's time
        if "-O" not in os.environ.get("CFLAGS", ""):
            compile_args.append("-O3")
    compile_args.append(
        "-Wno-unused-but-set-variable"
    )  # for Cython's variables; Cython reports ours
    link_args = ["-g"] if DEBUG else []
    if SANITIZERS:
        compile_args.append(f"-fsanitize={SANITIZERS}")
        link_args.append(f"-fsanitize={SANITIZERS}")
    if COVERAGE:
        compile_args.append("-fsanitize-coverage=trace-pc")
    return [
        Extension(
            ".".join(source.with_suffix("").parts),
            [str(source)],
            include_dirs=[str(CORE / "base")],
            depends=[str(header) for header in sorted(CORE.rglob("*.h"))],
            define_macros=[("TOLLWIRE_DEBUG", "1" if DEBUG else "0")],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
        for source in sorted(CORE.rglob("*.pyx"))
    ]


setup(
    packages=[
        "tollwire",
        "tollwire.v1",
        "tollwire.client",
        *find_packages(include=["ratingcore", "ratingcore.*"]),
        *(f"tollwire.{name}" for name in find_packages(include=["service", "service.*"])),
    ],
    # Proto package, folder and Python package are one path, so no import is rewritten. The folder
    # service is installed as tollwire.service, because a package of that general name would collide
    # with others. In the checkout, the link proto/tollwire/service shows type checkers the same.
    package_dir={"tollwire": "proto/tollwire", "tollwire.service": "service"},
    include_package_data=False,
    package_data={
        "tollwire": ["py.typed"],
        "tollwire.v1": ["*.proto", "*.pyi", "descriptors.binpb", "service_config.json"],
        "ratingcore": ["py.typed", "**/*.pyi"],
        "tollwire.service.storage.schema": ["migrations/**/*.py", "migrations/**/*.mako"],
    },
    ext_modules=core_extensions(),
    cmdclass={"build": Build, "build_protos": BuildProtos, "build_ext": BuildCore},
)
