"""Protobuf codecs without Python objects: a request's calls, the response, an import's rates."""
