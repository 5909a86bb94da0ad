"""CDRs: recording, uploads, corrections, the feed, the ledger, and verification."""
