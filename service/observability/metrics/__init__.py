"""The metrics of a server: collected from all workers, in the format of Prometheus.

observability/instruments.py and tallies.py count; this package collects and serves. It is the only
importer of prometheus_client, and is loaded only if metrics are on. Must not depend on gRPC. No
label contains a name, a number or an id of a customer.
"""
