"""The data of the database that each worker keeps in memory: tenants and their decks."""
