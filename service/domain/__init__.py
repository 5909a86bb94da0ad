"""Plain types, exact money, named errors, checks of single values, paging, scopes.

Knows neither the database, nor gRPC, nor the rating core.
"""
