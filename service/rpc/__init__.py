"""The service on the wire: besides the command line the only package that imports grpc and stubs.

``server`` is the lifecycle, the ``…_service`` modules translate (parse, call one thing, answer),
``conversion`` knows both the messages and the model, ``interceptors`` wrap every handler, and
``error_map`` is the one table through which errors leave. What Tollwire does, it does not know.
"""
