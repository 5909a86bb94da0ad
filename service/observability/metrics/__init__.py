"""What operators see of a server: its metrics, gathered from all workers, in Prometheus' form.

What is counted stands in service/signals and service/tallies; here it is gathered and shown. The
only importer of prometheus_client, and loaded only where metrics are asked for. Knows no gRPC and
no tenant: no label holds a name, a number or an id of what customers have.
"""
