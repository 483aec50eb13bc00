"""Code objects that somebody else built: taken into the store and found by their tables."""
