"""The processes of a server: composition, workers, ports, life cycle, maintenance commands.

``app`` has the entry points; ``composition`` builds all objects and connects them.
"""
