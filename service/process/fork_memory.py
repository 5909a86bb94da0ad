"""Keeps the memory that a process shares with the processes that it forks.

A forked process shares each page of memory until one of the two writes to it. An object that is
created in a free place between older ones is such a write, and so is the garbage collector's mark
in an old object. After ``prepare`` new objects get pages of their own, and the collector leaves the
old ones alone.

Must not depend on what the process serves.
"""

from __future__ import annotations

import contextlib
import gc
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from ratingcore.base.memory import drop_pages, use_up_heap

# Python's allocator serves blocks up to this size from pools, one for each multiple of the step.
_MAX_SMALL_BYTES = 512
_STEP_BYTES = 16
_POOL_BYTES = 16_384
_POOL_HEADER_BYTES = 48
# More free places of one size than a program leaves while it loads modules.
_MAX_FILL_BYTES = 4 * 2**20
_BYTES_HEADER = sys.getsizeof(b"")

# The objects that fill the free places.
_fill: list[list[object]] = []

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+) ")


def prepare() -> None:
    """Call it in a process with one thread before it forks."""
    gc.collect()
    # 0 with another allocator.
    if sys.getallocatedblocks():
        for size in range(_STEP_BYTES, _MAX_SMALL_BYTES + 1, _STEP_BYTES):
            _use_up_pools(size)
    use_up_heap()
    gc.freeze()
    _drop_file_pages()


def _drop_file_pages() -> None:
    """Give back the pages of programs and libraries, most of which were needed only to load them.
    The next use reads a page again. Has no effect if the system does not tell what is unchanged."""
    with contextlib.suppress(OSError):
        mapping = None
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if (found := _MAPPING.match(line)) is not None:
                first, end, rights, inode = found.groups()
                is_code = "w" not in rights and inode != "0"
                mapping = (int(first, 16), int(end, 16)) if is_code else None
            elif mapping is not None and line.split()[:2] == ["Anonymous:", "0"]:
                drop_pages(*mapping)


def _use_up_pools(size: int) -> None:
    """Fill the free blocks of this size in the pools that are in use. Python takes a free pool only
    when they are full."""
    make = _maker(size)
    capacity = (_POOL_BYTES - _POOL_HEADER_BYTES) // size
    # This function itself takes some blocks.
    enough = capacity - capacity // 50
    in_pool: defaultdict[int, list[object]] = defaultdict(list)
    for _ in range(_MAX_FILL_BYTES // size):
        made = make()
        pool = in_pool[id(made) // _POOL_BYTES]
        pool.append(made)
        if len(pool) >= enough:
            pool.clear()  # the first one that was free is free again
            _fill.extend(in_pool.values())
            return
    # Pools of another size than in the versions that are known.


def _maker(size: int) -> Callable[[], object]:
    """A function that takes one block of this size, and no other, for an object that the garbage
    collector does not know."""
    if size == _STEP_BYTES:
        return object
    if size == 2 * _STEP_BYTES:
        return lambda: complex(0.5, 0.5)
    return lambda: bytes(size - _BYTES_HEADER)
