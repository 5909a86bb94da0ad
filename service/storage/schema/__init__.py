"""The tables, the triggers that refuse changes of history, and the migrations."""
