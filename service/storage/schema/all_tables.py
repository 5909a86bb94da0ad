"""The schema as a whole: who asks for all tables asks here, and so none is missing because nobody
imported its module."""

from __future__ import annotations

from tollwire.service.storage.schema import access_tables, record_tables  # noqa: F401  fill the metadata
from tollwire.service.storage.schema.tenant_tables import Base

METADATA = Base.metadata
