"""Packs: everything a lock file needs, as one file that is also a read-only store."""
