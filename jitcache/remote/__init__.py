"""Remotes: stores elsewhere, none of them believed without a signature."""
