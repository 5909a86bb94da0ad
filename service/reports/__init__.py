"""Summaries of what is recorded."""
