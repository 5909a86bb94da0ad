"""Rates telephone calls and keeps the record of what each one cost; the layout is in
docs/architecture/README.md.
"""

import os

# Before anything loads grpc, which looks once: its core writes lines of its own to standard error,
# for each TLS handshake that fails and for each compressed request, which needs no token.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
