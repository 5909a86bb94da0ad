"""The ``tollwire`` command: a server's start, and a gRPC client like any other.

Knows the wire and nothing behind it: the commands speak through the generated stubs only. The one
exception is starting a server and migrating a database, which go through service.app.
"""
