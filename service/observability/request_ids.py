"""The ids of requests in logs: from the client, or generated.

A client may send an id in the metadata key x-request-id. It may contain a telephone number, so logs
mask it unless it is generated or a UUID. Must not depend on gRPC.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import count

METADATA_KEY = "x-request-id"
MAX_CHARS = 128

_TAKEN = re.compile(rf"[A-Za-z0-9._:/+=@-]{{1,{MAX_CHARS}}}")
# 32 hexadecimal digits, with or without hyphens: UUIDs and trace ids.
_UUID = re.compile(r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}", re.I)
_HAS_A_LETTER = re.compile(r"[a-f]", re.I)

# The prefix of the ids that this process generates, and the number of the next one.
_OWN = ""
_NUMBERS = count(1)


def _take_prefix() -> None:
    global _OWN
    _OWN = os.urandom(6).hex() + "-"


_take_prefix()
# Workers are forked from one process: each has its own.
os.register_at_fork(after_in_child=_take_prefix)


def new() -> str:
    return f"{_OWN}{next(_NUMBERS):x}"


def taken(sent: str | bytes | None) -> str:
    """The client's id of the request if it is valid, else a new one."""
    if isinstance(sent, str) and _TAKEN.fullmatch(sent) is not None:
        return sent
    return new()


def shown(request_id: str, mask: Callable[[str], str]) -> str:
    """The id as logs may show it."""
    if request_id.startswith(_OWN) or (_UUID.fullmatch(request_id) and _has_letters(request_id)):
        return request_id
    return mask(request_id)


def _has_letters(request_id: str) -> bool:
    return _HAS_A_LETTER.search(request_id) is not None
