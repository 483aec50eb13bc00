"""Actions: from a plan to compiler commands and the keys of their results."""
