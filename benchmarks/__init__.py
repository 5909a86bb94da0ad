"""Measurements: they import the project as a client would, and state what they compare with.

``python -m benchmarks`` (``make bench``) runs them. Each file of ``subjects`` measures one subject;
the rest is what they share: ``harness`` (rows, budgets, taking turns), ``workbench`` (the real
deck, servers and databases, made once a run), ``load`` (the client, in a process of its own) and
``peer`` (the servers that are compared with). ``demo`` stands alone.
"""
