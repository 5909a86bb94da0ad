"""The history of the schema, as Alembic revisions in ``versions``.

To change the schema: change ``tables``, add a module ``versions/NNNN_what.py`` with the next number
as ``revision`` and the last as ``down_revision``, and let tests/storage/test_migrations.py say what
is still missing. Only forwards: a release that is rolled back is restored from a backup.
"""
