"""What each worker keeps in memory and keeps equal to the database: tenants and their decks."""
