"""The wire format of Tollwire: tollwire.v1 holds what the .proto files beside it became."""
