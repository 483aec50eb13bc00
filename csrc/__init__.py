"""Our C++ sources, as package data."""
