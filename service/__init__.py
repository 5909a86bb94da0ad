"""Rates telephone calls and keeps the record of what each one cost; the layout is in
docs/architecture/README.md.
"""

import os

# Before anything loads grpc, which looks once: by default it writes a line to standard error for
# each stranger whose TLS handshake fails.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
