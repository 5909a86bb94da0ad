"""The tables, the triggers that keep them immutable, and the migrations."""
