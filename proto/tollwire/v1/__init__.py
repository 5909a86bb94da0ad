"""Version 1 of the wire format. The modules here are made by the build, from the .proto files."""
