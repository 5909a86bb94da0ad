"""The schema as a whole: who asks for all tables asks here, and so none is missing because nobody
imported its module."""

from __future__ import annotations

from service.storage import record_tables  # noqa: F401  its tables are in the metadata then
from service.storage.tables import Base

METADATA = Base.metadata
