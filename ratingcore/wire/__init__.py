"""Protobuf read and written without objects: a request's calls, the response, an import's rates."""
