"""The ``tollwire`` command: a server's start, and a gRPC client like any other.

Knows the wire and nothing behind it: the commands speak through the generated stubs only. The only
exceptions are starting a server and the maintenance of a database, which go through
tollwire.service.process.app and tollwire.service.process.maintenance.
"""
