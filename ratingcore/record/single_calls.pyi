from collections.abc import Iterable

from .records import Records

def read_single_call(request_bytes: bytes) -> Records | None: ...
def joined(lists: Iterable[Records]) -> Records: ...
def created_cdr(
    records: Records,
    position: int,
    cdr_id: int,
    created_at_ns: int,
    cost_decimals: int,
    tenant: bytes,
    extension: bytes | None,
    rate: bytes | None,
    matched_prefix: bytes | None,
) -> bytes: ...
def cdr_tags() -> dict[str, int]: ...
