"""Calls as CDRs: identity, rows for both databases, digests, verification."""
