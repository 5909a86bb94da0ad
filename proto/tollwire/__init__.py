"""Tollwire: ``v1`` is the wire (made of the .proto files), ``service`` the server and command."""
