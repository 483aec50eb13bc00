"""AITER's tree: reading it, and writing sources for its build."""
