"""The prefix trie of a deck: its tables, the search, and building the next one."""
