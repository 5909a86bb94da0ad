"""Logs, request ids, counters and histograms; ``metrics`` exports them for Prometheus."""
