"""Usage summaries of the recorded CDRs."""
