"""Runs a target with libFuzzer, which keeps the inputs that reach new branches of the core.

atheris is libFuzzer for Python. coverage.c counts the branches that an input reaches in the core;
its counters are registered with libFuzzer here. The core must have been built with
TOLLWIRE_COVERAGE.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable
from pathlib import Path

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

from tests.fuzz.agreement import Target
from tests.fuzz.mutations import MAX_BYTES, mutate

# The share of inputs that libFuzzer mutates by itself.
_UNSTRUCTURED = 0.5


def fuzz(
    target: Target,
    check: Callable[[bytes], None],
    corpus: Path,
    *,
    seed: int,
    seconds: float,
) -> None:
    """Does not return: libFuzzer ends the process, after ``seconds`` or with a finding."""
    draw = random.Random(seed)
    for number in range(200):
        (corpus / f"made-{number}").write_bytes(target.grammar.make(draw))

    def bend(data: bytes, max_size: int, chance: int) -> bytes:
        draw = random.Random(chance)
        if draw.random() < _UNSTRUCTURED:
            return bytes(atheris.Mutate(data, max_size))
        return mutate(data, target.grammar, draw)[:max_size]

    atheris.Setup(
        [
            "fuzz",
            str(corpus),
            f"-seed={seed}",
            f"-max_total_time={max(1, round(seconds))}",
            f"-max_len={MAX_BYTES}",
            "-len_control=0",
            "-verbosity=0",
            "-mutate_depth=1",
            "-rss_limit_mb=0",
            "-timeout=60",
            f"-artifact_prefix={corpus}/",
        ],
        check,
        custom_mutator=bend,
        internal_libfuzzer=True,
    )
    _register_counters()
    atheris.Fuzz()


def _register_counters() -> None:
    """The effect of __sanitizer_cov_8bit_counters_init in a program that clang has compiled.

    The function is not called by its name alone: the address sanitizer has an empty one.
    """
    # Before libFuzzer, which looks for a mutator when it is loaded.
    _library("custom_mutator", ctypes.RTLD_GLOBAL)
    libfuzzer = _library("core_with_libfuzzer", ctypes.RTLD_LOCAL)
    ours = ctypes.CDLL(None)
    size = ctypes.c_uint32.in_dll(ours, "coverage_size").value
    start = ctypes.addressof((ctypes.c_uint8 * size).in_dll(ours, "coverage_counters"))
    libfuzzer.__sanitizer_cov_8bit_counters_init(
        ctypes.c_void_p(start), ctypes.c_void_p(start + size)
    )


def _library(name: str, mode: int) -> ctypes.CDLL:
    (path,) = Path(atheris.__file__).parent.glob(f"{name}.*.so")
    return ctypes.CDLL(str(path), mode)
