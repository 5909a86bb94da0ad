"""Measurements: they import the project as a client would, and state what they compare with."""
