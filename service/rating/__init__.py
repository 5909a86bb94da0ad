"""Rates and rate decks, and rating of calls. Must not store CDRs."""
