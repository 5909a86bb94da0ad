"""The gRPC server: besides the command line the only package that imports grpc and the stubs.

``server`` is the life cycle, the ``…_service`` modules parse, call one thing and answer,
``conversion`` converts between messages and the model, ``interceptors`` wraps every handler, and
``error_map`` has the status of every error. Must not contain rules of rating or of the record.
"""
