"""Logs, request ids, counters and histograms; ``metrics`` shows them to operators."""
