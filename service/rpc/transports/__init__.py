"""The transports of RPCs: each presents its RPCs to the endpoints as an RpcCall (rpc/call.py)."""
