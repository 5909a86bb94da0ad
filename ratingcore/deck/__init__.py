"""What Python calls: ``Deck``, ``DeckBuilder``, rating in blocks and columns, explanations."""
