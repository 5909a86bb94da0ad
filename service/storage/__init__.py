"""Persistence: the only package that imports SQLAlchemy.

``engine`` owns connections and transactions, ``tables`` the schema, ``migrations`` its history; the
other modules are queries, one module a subject, as functions over a ``Connection``.
"""
