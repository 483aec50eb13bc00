"""Manifests: what a deployment says, read, checked and resolved."""
