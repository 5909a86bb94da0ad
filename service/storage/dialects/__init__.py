"""What differs between the databases: one class for each, with the interface in ``base``."""
