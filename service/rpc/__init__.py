"""The gRPC server. Besides the command line, the only package that imports grpc and the stubs.

``server`` has the life cycle; the ``…_service`` modules are the servicers; ``conversion`` converts
between messages and the model; ``endpoints`` wraps every method, and ``transports`` connect the
endpoints with clients; ``error_map`` has the status of every error. Must not contain rules of
rating or of the record.
"""
