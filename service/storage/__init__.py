"""Persistence: the only package that imports SQLAlchemy.

``engine`` opens connections and transactions, ``schema`` has the tables, triggers and migrations,
``dialects`` has what differs between the databases. The other modules are queries, one module for
each subject, as functions that take a ``Connection``.
"""
