"""A digest for each record of an upload's chunks, and counts of derived and again recorded calls.

Chunks that are settled have no such digests: what comes again of them is compared otherwise
(service/record/settled_records.py).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COUNTS = ("recorded_again", "derived_call_ids", "derived_duplicates")


def upgrade() -> None:
    op.add_column("upload_chunks", sa.Column("record_digests", sa.LargeBinary(), nullable=True))
    for table, kind in (("upload_chunks", sa.Integer()), ("uploads", sa.BigInteger())):
        for name in _COUNTS:
            op.add_column(table, sa.Column(name, kind, server_default=sa.text("0"), nullable=False))
