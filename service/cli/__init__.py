"""The ``tollwire`` command: starts servers, and is a gRPC client like any other.

The client commands use only the generated stubs. Only ``serve``, the maintenance commands and
``doctor`` import other parts of the service (process/app.py, process/maintenance.py, settings/).
"""
