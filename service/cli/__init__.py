"""The ``tollwire`` command: a server's start, and a gRPC client like any other.

Depends on the wire only: the commands use the generated stubs. The only exceptions are starting a
server and the maintenance of a database, in tollwire.service.process.app and
tollwire.service.process.maintenance.
"""
