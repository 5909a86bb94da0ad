"""What Alembic runs to apply the revisions, on the connection and transaction it is given."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # SQLite cannot alter most things in place: a batch copies the table.
    render_as_batch=True,
)
context.run_migrations()
