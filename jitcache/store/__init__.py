"""The local store: action records by key, and the bytes they name by digest (docs/store.md)."""
