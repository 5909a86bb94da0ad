from collections.abc import Callable

from .deck import Deck

class MalformedRequest(ValueError): ...
class TooManyCalls(ValueError): ...

def rate_request(
    request_bytes: bytes,
    find_deck: Callable[[int], Deck | None],
    refer: Callable[[bytes], bytes],
    now_ns: int,
    max_calls: int,
) -> bytes: ...

def min_rate_revision(request_bytes: bytes) -> int: ...
def rated_call_tags() -> dict[str, int]: ...
