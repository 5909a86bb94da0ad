from collections.abc import Callable

from .deck import Deck

class MalformedRequest(ValueError): ...
class TooManyCalls(ValueError): ...

class OtherRevision(ValueError):
    demanded: int
    def __init__(self, demanded: int) -> None: ...

def rate_request(
    request_bytes: bytes,
    find_deck: Callable[[int], Deck | None],
    refer: Callable[[bytes], bytes],
    now_ns: int,
    max_calls: int,
    min_rate_revision: int = 0,
) -> bytes: ...
def rate_lone_call(
    request_bytes: bytes, find_deck: Callable[[int], Deck | None], now_ns: int
) -> bytes | None: ...
def likely_min_rate_revision(request_bytes: bytes) -> int: ...
