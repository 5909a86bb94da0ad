"""The processes of a server: composition, workers, ports, life cycle, maintenance commands.

``app`` is the composition root: the one module that builds everything and hands it on.
"""
