"""The measurements, one module a subject. Each has ``run``, which yields rows."""
