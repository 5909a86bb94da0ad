"""Plain types, exact money, named errors, checks of single values, paging, scopes.

Must not depend on the database, gRPC or the rating core.
"""
