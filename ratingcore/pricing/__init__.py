"""The rating rules on single values: normalised numbers, billed seconds, exact cost."""
