"""Measurements: they import the project as a client would, and state what they compare with.

``python -m benchmarks`` (``make bench``) runs them. Each file of ``subjects`` measures one subject.
The rest is shared: ``harness`` (rows, budgets, alternating runs), ``workbench`` (the real deck,
servers and databases, created once a run), ``load`` (the client, in its own process) and ``peer``
(the servers of the comparison). ``demo`` does not use the others.
"""
