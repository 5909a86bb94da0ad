"""The prefix trie of a deck: its tables, how they are searched, and how changes make the next ones."""
