"""The settings of a server: their fields and sources, and its certificates and keys."""
