from collections.abc import Iterable

from .records import Records

def joined(lists: Iterable[Records]) -> Records: ...
