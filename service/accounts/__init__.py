"""Tenants, extensions, tokens, callers, and the audit log."""
