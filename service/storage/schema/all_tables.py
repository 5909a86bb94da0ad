"""The metadata of all tables. Import it from here: this module imports all modules of tables."""

from __future__ import annotations

from tollwire.service.storage.schema import access_tables, record_tables  # noqa: F401  fill the metadata
from tollwire.service.storage.schema.tenant_tables import Base

METADATA = Base.metadata
