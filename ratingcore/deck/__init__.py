"""The API for Python: ``Deck``, ``DeckBuilder``, rating in blocks and columns, explanations."""
