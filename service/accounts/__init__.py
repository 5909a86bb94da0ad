"""Tenants, extensions, tokens, the callers that tokens stand for, and the audit log."""
