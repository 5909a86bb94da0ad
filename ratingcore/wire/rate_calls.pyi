from collections.abc import Callable

from ..deck.deck import Deck
from .tally import Tally

VIEW_BASIC: int

class MalformedRequest(ValueError): ...
class TooManyCalls(ValueError): ...

class OtherOptions(ValueError):
    min_rate_revision: int
    view: int
    def __init__(self, min_rate_revision: int, view: int) -> None: ...

def rate_request(
    request_bytes: bytes,
    find_deck: Callable[[int], Deck | None],
    refer: Callable[[bytes], bytes],
    now_ns: int,
    max_calls: int,
    min_rate_revision: int = 0,
    view: int = 0,
    tally: Tally | None = None,
) -> bytes: ...
def rate_lone_call(
    request_bytes: bytes,
    find_deck: Callable[[int], Deck | None],
    now_ns: int,
    tally: Tally | None = None,
) -> bytes | None: ...
def rate_lone_calls(
    requests: list[bytes],
    find_deck: Callable[[int, int], Deck | None],
    now_ns: int,
    tally: Tally | None = None,
) -> list[bytes | None]: ...
def likely_options(request_bytes: bytes) -> tuple[int, int]: ...
