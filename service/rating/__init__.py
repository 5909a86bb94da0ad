"""Rates and rate decks, and the pricing of calls. Nothing here stores a CDR."""
