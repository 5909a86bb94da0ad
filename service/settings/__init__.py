"""The settings of a server: their fields, where their values come from, certificates and keys."""
