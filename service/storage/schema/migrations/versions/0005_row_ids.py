"""On PostgreSQL the ids of rows rise with the transactions that take them.

Before, each worker had blocks of a million ids, so that ids of one worker's calls said nothing
about those of another. The new sequences go on behind every block that was given out.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_BLOCK_SIZE = 1_000_000
_TABLES = ("cdrs", "cdr_pricings", "cdr_reversals")

# nextval and setval together, which no other transaction may come between. The lock ends with the
# block: an exception takes back what the block has locked, and a sequence is never taken back. So
# no transaction waits for a commit, and an interrupted function frees the lock too.
_FUNCTION = """
CREATE FUNCTION tollwire_take_ids(ids regclass, count bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    first bigint;
BEGIN
    PERFORM pg_advisory_xact_lock((1414483020::bigint << 32) | ids::oid::bigint);
    first := nextval(ids);
    IF count > 1 THEN
        PERFORM setval(ids, first + count - 1);
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'TW001';
EXCEPTION WHEN SQLSTATE 'TW001' THEN
    RETURN first;
END $$
"""


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        return  # it takes the id behind the highest one, under the lock of its one writer
    for table in _TABLES:
        op.execute(sa.schema.CreateSequence(sa.Sequence(f"{table}_ids", start=1)))
        op.execute(
            f"SELECT setval('{table}_ids', greatest("
            f" (SELECT CASE WHEN is_called THEN last_value + {_BLOCK_SIZE} ELSE 1 END"
            f" FROM {table}_id_blocks),"
            f" (SELECT coalesce(max(id), 0) + 1 FROM {table})), false)"
        )
        op.execute(f"DROP SEQUENCE {table}_id_blocks")
    op.execute(_FUNCTION)
